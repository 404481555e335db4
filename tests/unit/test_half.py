"""Half fine-tuning: which half, that the other one stays to the bit, and that it follows from the seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import adapted
import pytest
import tiny_model
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError
from rlhf.models.trainable import half


def shapes(family: str = "llama", layers: int = 4) -> dict[str, tuple[int, ...]]:
    name = "n_layer" if family == "gpt2" else "num_hidden_layers"
    model = tiny_model.model(family, **{name: layers})
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def stay(level: str, seed: int = 0, **model: object) -> set[str]:
    return half.chosen_to_stay(shapes(**model), half.Config(level=level), seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_by_category_every_layer_gives_half_of_each_kind(seed: int) -> None:
    found = stay("category", seed)
    attention = Counter(name.split(".")[2] for name in found if "self_attn" in name)
    assert attention == dict.fromkeys("0123", 2)
    feed_forward = Counter(name.split(".")[2] for name in found if "mlp" in name)
    assert sorted(feed_forward.values()) == [1, 1, 2, 2]
    assert sum("norm" in name for name in found) == 4, "of nine, the last one included"
    assert not any("embed" in name or "lm_head" in name for name in found)


def test_by_layer_half_of_the_layers_stay_whole() -> None:
    found = stay("layer")
    assert len({name.split(".")[2] for name in found}) == 2
    assert all(count == 9 for count in Counter(name.split(".")[2] for name in found).values())
    assert len({name.split(".")[2] for name in stay("layer", layers=3)}) == 1


def test_by_model_half_of_all_matrices_stay_whatever_they_are() -> None:
    found = stay("model")
    assert sum("proj" in name for name in found) == 14
    kinds = Counter(name.split(".")[2] for name in found if "self_attn" in name)
    assert any(kinds != Counter(name.split(".")[2] for name in stay("model", s) if "attn" in name) for s in range(1, 4))


def test_biases_go_with_their_matrix_and_norms_with_theirs() -> None:
    found = stay("category", family="gpt2")
    for name in found:
        if name.endswith(".weight"):
            assert name.replace(".weight", ".bias") in found, name
    assert Counter(name.split(".")[2] for name in found if "attn.c" in name) == dict.fromkeys("0123", 2), "one, a bias"
    assert not any("wte" in name or "wpe" in name for name in found)


def test_experts_are_a_kind_of_their_own() -> None:
    shape = {"vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 4, "head_dim": 4, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 2, "moe_intermediate_size": 4, "num_experts": 2, "num_experts_per_tok": 1}
    with torch.device("meta"):
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape))
    found = half.chosen_to_stay({n: tuple(p.shape) for n, p in model.named_parameters()}, half.Config(), 0)
    assert Counter(name.split(".")[2] for name in found if "experts" in name) == dict.fromkeys("0123", 1)


def test_the_choice_follows_from_the_seed() -> None:
    assert stay("category", 1) == stay("category", 1) != stay("category", 2)


def test_what_stays_is_the_same_to_the_bit_and_has_no_optimizer(tmp_path: Path) -> None:
    made = adapted.learner(adapted.folder(tmp_path), {"name": "half"}, seed=3)
    before = adapted.own(made)
    adapted.train(made)
    frozen = half.chosen_to_stay(shapes(layers=2), half.Config(), 3)
    changed = {name for name, tensor in adapted.own(made).items() if not torch.equal(tensor, before[name])}
    assert changed == before.keys() - frozen and 0.4 < len(frozen) / len(before) < 0.6
    backend = made._backend
    assert len(backend._optimizer.state) == len(changed)  # type: ignore[attr-defined]


def test_the_head_of_a_critic_always_trains(tmp_path: Path) -> None:
    made = adapted.learner(adapted.folder(tmp_path), {"name": "half", "level": "model"}, loss="value")
    assert made._backend.model.score.weight.requires_grad  # type: ignore[union-attr]


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainable\.level"):
        build_component("rlhf.models.trainable", {"name": "half", "level": "kind"}, "trainable")
