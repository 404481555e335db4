"""An engine with experts: known cases of the weight, the distribution that is sampled, whose weights are loaded."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from test_transformers_engine import PROMPTS, SHAPED, assert_same, ending, engine, requests
from tiny_model import CONTEXT, ids

from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling, transform
from rlhf.models import tokenizers
from rollout import logit_fusion
from rollout.fused_engine import Config, build
from rollout.transformers_engine import TransformersEngine


def expert(seed: int, *, of: int, **changes: Any) -> Any:
    """A model near the one of another seed."""
    model, other = ending(seed=of), tiny_model.model(seed=100 + seed, **changes)
    with torch.no_grad():
        for own, far in zip(model.parameters(), other.parameters(), strict=True):
            own.lerp_(far, 0.2)
    return model


def spec(large: Any, small: dict[str, Any], tokenizer: Any = None) -> EngineSpec:
    own = tiny_model.tokenizer()
    return EngineSpec(
        path=Path("unused"),
        dtype="float32",
        device="cpu",
        trust_remote_code=False,
        load=lambda: (large, own),
        open=lambda path: (small[path], tokenizer or own),
    )


def made(large: Any, small: Any, *experts: Any, **settings: Any) -> TransformersEngine:
    names = [f"expert-{i}" for i in range(len(experts))]
    models = {"small": small} | dict(zip(names, experts, strict=True))
    return build(Config(small="small", experts=names, **settings), spec(large, models))


def test_where_the_large_model_is_the_small_one_its_samples_are_the_experts() -> None:
    """The search finds a weight of 1 at every token."""
    tuned = expert(1, of=0)
    found = made(ending(seed=0), ending(seed=0), tuned).generate(requests(), sampling=SHAPED)
    own = engine(tuned).generate(requests(), sampling=SHAPED)
    assert_same(found, own)
    plain = engine(ending(seed=0)).generate(requests(), sampling=SHAPED)
    assert [c.tokens for c in found] != [c.tokens for c in plain]


def test_a_weight_of_0_leaves_the_large_model_alone() -> None:
    large = ending("qwen3", seed=3)
    found = made(large, ending(seed=0), expert(1, of=0), alpha=[0.0]).generate(requests(), sampling=SHAPED)
    assert_same(found, engine(ending("qwen3", seed=3)).generate(requests(), sampling=SHAPED))


@pytest.mark.parametrize("alpha", [[0.7, 1.3], []])
def test_log_probs_are_those_of_the_fused_distribution(alpha: list[float]) -> None:
    """Recomputed without a cache, token by token, from the models' whole logits."""
    large, small = ending("gpt2", seed=5), ending(seed=0)
    experts = [expert(1, of=0), expert(2, of=0)]
    grid = Config(small="small", experts=["expert"]).grid
    fusion = made(large, small, *experts, alpha=alpha)
    for completion in fusion.generate(requests(PROMPTS[:2], group=2), sampling=SHAPED):
        prompt = PROMPTS[int(completion.request_id.split("-")[0])]
        assert len(completion.tokens) > 1
        for t, token in enumerate(completion.tokens):
            read = torch.tensor([prompt + completion.tokens[:t]])
            with torch.no_grad():
                l, s, *e = (model(read).logits[:, -1] for model in (large, small, *experts))
            weights = torch.tensor([alpha]) if alpha else logit_fusion.search(l, s, e, grid=grid)
            expected = transform(logit_fusion.fused(l, s, e, weights), SHAPED).log_softmax(-1)[0, token]
            assert completion.logprobs[t] == pytest.approx(float(expected), abs=1e-4)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    fusion = made(ending("qwen3", seed=3), ending(seed=0), expert(1, of=0), max_batch=5, retire_share=1e-9)
    asked = requests(PROMPTS[:3], group=2)
    together = fusion.generate(asked, sampling=SHAPED)
    assert len({len(c.tokens) for c in together}) > 3
    assert_same([fusion.generate([r], sampling=SHAPED)[0] for r in asked], together)
    by_id = {c.request_id: c for c in fusion.generate(random.Random(0).sample(asked, len(asked)), sampling=SHAPED)}
    assert_same([by_id[r.id] for r in asked], together)


def test_weights_are_loaded_into_the_large_model() -> None:
    small, tuned = ending(seed=0), expert(1, of=0)
    fusion = made(ending(seed=3), small, tuned)
    before = [p.clone() for model in (small, tuned) for p in model.parameters()]
    fusion.load_weights(4, ending(seed=7).named_parameters())
    asked = requests(PROMPTS[:2], group=2)
    found = fusion.generate(asked, sampling=SHAPED)
    assert {c.policy_version for c in found} == {4} and fusion.version == 4
    assert_same(found, made(ending(seed=7), small, tuned).generate(asked, sampling=SHAPED))
    after = [p for model in (small, tuned) for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_shortest_context_counts() -> None:
    short = tiny_model.model("gpt2", n_positions=8)
    fusion = made(tiny_model.model(), short, short, alpha=[1.0])
    done = fusion.generate(requests([ids("123456"), ids("12345678")], group=1), sampling=Sampling(max_tokens=9))
    assert [len(c.tokens) for c in done] == [2, 0] and CONTEXT > 8


def test_it_is_chosen_like_any_engine_and_searches_from_0_to_2() -> None:
    chosen = build_component("rollout", {"name": "fused_engine", "small": "a", "experts": ["b"]}, "engine")
    assert chosen.config.grid == pytest.approx([i / 10 for i in range(21)])
    models = {"a": ending(seed=0), "b": expert(1, of=0)}
    assert chosen.module.build(chosen.config, spec(ending(seed=2), models)).generate([], sampling=SHAPED) == []


def test_another_vocabulary_is_refused() -> None:
    other = tokenizers.train_char([])
    small = spec(tiny_model.model(), {"a": tiny_model.model(), "b": tiny_model.model()}, other)
    with pytest.raises(DataError, match=r"engine.small: its vocabulary differs .* tokens: \["):
        build(Config(small="a", experts=["b"]), small)


def test_models_that_cannot_be_fused_are_refused() -> None:
    one, wide = tiny_model.model(), tiny_model.model(vocab_size=40)
    with pytest.raises(DataError, match=r"engine.experts.1: gives 40 logits; the small model gives 26"):
        made(one, one, one, wide)
    narrow = tiny_model.model(vocab_size=20)
    with pytest.raises(DataError, match=r"engine.small: gives 20 logits.*there are 26 tokens"):
        made(one, narrow, narrow)
    with pytest.raises(DataError, match=r"engine.experts.0: MambaForCausalLM has recurrent layers"):
        made(one, one, tiny_model.model("mamba"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"small": ""}, "small"),
        ({"experts": []}, "experts"),
        ({"alpha": [1.0, 2.0]}, "alpha"),
        ({"step": 0.0}, "step"),
        ({"max_alpha": 0.05}, "step"),
        ({"max_batch": 0}, "max_batch"),
        ({"retire_share": 2.0}, "retire_share"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**({"small": "a", "experts": ["b"]} | wrong))
    assert caught.value.where == field
