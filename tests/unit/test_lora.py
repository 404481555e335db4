"""LoRA: what trains, what the outside sees of it, and that it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapted
import pytest
import tiny_model
import torch
from adapted import LORA
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from rlhf.core.errors import CheckpointError, ConfigError, UserError
from rlhf.core.training import Head
from rlhf.learner.learner import Learner
from rlhf.models import load
from rlhf.models.adapters import adapted as layers_of
from rlhf.models.trainable import lora

peft = pytest.importorskip("peft", reason="needs the extra `lora`")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return adapted.folder(tmp_path / "plain")


def saved(made: Learner, path: Path) -> Path:
    path.mkdir()
    made.save(path)
    return path


def test_only_adapters_train_and_have_an_optimizer(plain: Path) -> None:
    made = adapted.learner(plain, LORA)
    before = adapted.own(made)
    adapted.train(made)
    after = adapted.own(made)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    linear = {
        f"model.layers.{i}.{m}" for i in (0, 1) for m in (*(f"self_attn.{x}_proj" for x in "qkvo"), "mlp.up_proj")
    }
    linear |= {f"model.layers.{i}.mlp.{m}_proj" for i in (0, 1) for m in ("gate", "down")}
    assert changed == {f"{layer}.lora_{kind}.default.weight" for layer in linear for kind in "AB"}
    backend: Any = made._backend
    assert len(backend._optimizer.state) == len(changed)


def test_the_outside_sees_the_plain_model_with_what_the_adapters_add(plain: Path) -> None:
    made = adapted.learner(plain, LORA)
    opened = load_file(plain / "model.safetensors")
    start = adapted.weights(made)
    assert start.keys() == opened.keys() and all(torch.equal(start[n], t) for n, t in opened.items()), "B is 0"
    assert [(m.name, m.dtype, m.shape) for m in made.metadata()] == [
        (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in start.items()
    ]
    adapted.train(made)
    inner, found = adapted.own(made), adapted.weights(made)
    name = "model.layers.1.mlp.down_proj"
    first, second = (inner[f"{name}.lora_{kind}.default.weight"] for kind in "AB")
    torch.testing.assert_close(found[f"{name}.weight"], opened[f"{name}.weight"] + 5 / 3 * second @ first)
    assert not torch.equal(found[f"{name}.weight"], opened[f"{name}.weight"])
    assert torch.equal(inner[f"{name}.base_layer.weight"], opened[f"{name}.weight"]), "the base is never written"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_checkpoint_holds_the_merged_model_and_the_adapters(family: str, tmp_path: Path) -> None:
    plain = adapted.folder(tmp_path / "plain", family, tie_word_embeddings=True)
    made = adapted.learner(plain, LORA)
    adapted.train(made)
    logprobs = torch.cat(made.logprobs(adapted.batches()))
    folder = saved(made, tmp_path / "step_2")
    assert not (folder / "adapter_config.json").exists()
    merged = adapted.learner(folder, "full", loss=None)
    torch.testing.assert_close(torch.cat(merged.logprobs(adapted.batches())), logprobs, atol=1e-4, rtol=0)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    alone = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(plain), folder / "adapter")
    tokens = torch.arange(6, 16)[None]
    with torch.no_grad():
        torch.testing.assert_close(alone(input_ids=tokens).logits, whole(input_ids=tokens).logits, atol=1e-4, rtol=1e-4)
    inner = adapted.own(made)
    read = {name.removeprefix("base_model.model."): p for name, p in alone.named_parameters() if "lora_" in name}
    assert read and all(torch.equal(inner[name], tensor) for name, tensor in read.items())
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (3, 5, str(plain))


def test_it_goes_on_as_if_it_had_not_stopped(plain: Path, tmp_path: Path) -> None:
    whole = adapted.learner(plain, LORA, seed=7)
    adapted.train(whole, 3)
    half = adapted.learner(plain, LORA, seed=7)
    adapted.train(half, 2)
    folder = saved(half, tmp_path / "step_2")
    again = adapted.learner(plain, LORA, seed=8, adapter=folder / "adapter")
    again.load(folder)
    adapted.train(again, 1)
    expected = adapted.own(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in adapted.own(again).items())


def test_what_it_starts_from_follows_from_its_seed(plain: Path) -> None:
    one, same, other = (adapted.own(adapted.learner(plain, LORA, seed=seed)) for seed in (1, 1, 2))
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name])
    assert 0.8 / 32**0.5 < one[name].abs().max() <= 1 / 32**0.5
    assert not torch.equal(one[name], one[name.replace("q_proj", "k_proj")])


def test_switched_off_it_is_the_model_that_was_opened(plain: Path) -> None:
    made = adapted.learner(plain, LORA)
    base = adapted.learner(plain, "full", loss=None)
    adapted.train(made)
    expected = base.logprobs(adapted.batches())
    assert all(torch.equal(a, b) for a, b in zip(made.base_logprobs(adapted.batches()), expected, strict=True))
    gap = torch.cat(made.logprobs(adapted.batches())) - torch.cat(expected)
    assert gap.abs().max() > 1e-3, "on again"
    adapted.train(made, 1)
    with pytest.raises(AssertionError):
        base.base_logprobs(adapted.batches())


def test_a_critic_trains_its_head_as_a_whole_and_goes_on(plain: Path, tmp_path: Path) -> None:
    made = adapted.learner(plain, LORA, loss="value")
    adapted.train(made, 2)
    folder = saved(made, tmp_path / "step_2")
    adapted.train(made, 1)
    assert made._backend.model.score.weight.abs().max() > 0  # type: ignore[union-attr]
    again = adapted.learner(plain, LORA, loss="value", adapter=folder / "adapter")
    again.load(folder)
    adapted.train(again, 1)
    expected = adapted.own(made)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in adapted.own(again).items())
    base = AutoModelForTokenClassification.from_pretrained(plain, num_labels=1)
    alone = peft.PeftModel.from_pretrained(base, folder / "adapter")
    merged = load.load_model(folder, head=Head.VALUES)
    tokens = torch.arange(6, 16)[None]
    with torch.no_grad():
        torch.testing.assert_close(alone(input_ids=tokens).logits, merged(input_ids=tokens).logits, atol=1e-4, rtol=0)


def test_recomputing_activations_changes_nothing(plain: Path) -> None:
    found: list[dict[str, torch.Tensor]] = []
    for recompute in (False, True):
        made = adapted.learner(plain, LORA, gradient_checkpointing=recompute)
        adapted.train(made, 1)
        adapted.train(made, 1)
        found.append(adapted.own(made))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-6, rtol=0)


def test_adapters_of_a_narrow_model_are_float32(tmp_path: Path) -> None:
    plain = adapted.folder(tmp_path / "plain", dtype=torch.bfloat16)
    made = adapted.learner(plain, LORA)
    adapted.train(made)
    kinds = {name.split(".")[-2] if "lora" in name else "": p.dtype for name, p in adapted.own(made).items()}
    assert kinds == {"default": torch.float32, "": torch.bfloat16}
    assert {tensor.dtype for tensor in adapted.weights(made).values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"r": 0}, "learner.trainable.r"),
        ({"alpha": 0}, "learner.trainable.alpha"),
        ({"dropout": 0.1}, "unknown key"),
    ],
)
def test_impossible_values_name_their_field(plain: Path, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        adapted.learner(plain, LORA | wrong)


def test_some_layers_only_and_none_that_are_not_there(plain: Path) -> None:
    made = adapted.learner(plain, LORA | {"target_modules": ["q_proj", "v_proj"]})
    assert {name.rpartition(".")[2] for name in layers_of(made._backend.model)} == {"q_proj", "v_proj"}
    for name in ("query", "lm_head"):
        with pytest.raises(ConfigError, match=r"target_modules.*no linear layer"):
            adapted.learner(plain, LORA | {"target_modules": [name]})


def test_adapters_of_another_shape_are_refused(plain: Path, tmp_path: Path) -> None:
    folder = saved(adapted.learner(plain, LORA), tmp_path / "step_0")
    for other, says in (
        ({"r": 2}, "is"),
        ({"alpha": 6}, "alpha 5, not 6"),
        ({"target_modules": ["q_proj"]}, "holds other"),
    ):
        with pytest.raises(CheckpointError, match=says):
            adapted.learner(plain, LORA | other, adapter=folder / "adapter")
    with pytest.raises(CheckpointError, match="cannot be read"):
        adapted.learner(plain, LORA, adapter=tmp_path / "nowhere")


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match=r"rlhf\[lora\]"):
        lora.prepare(tiny_model.model(), lora.Config(), 0)
