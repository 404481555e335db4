"""A sampler of lower precision: its weights are rounded when they arrive, the trainer's never, and the gap shows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny_model
import torch
from tiny_model import ids

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling
from rlhf.core.training import Sample
from rlhf.core.types import Request
from rlhf.data.packing import pack
from rlhf.losses.common import measure
from rlhf.losses.correction import mismatch
from rlhf.models.forward import ForwardSpec, forward, use_packed
from rollout.rounding import round_mantissa
from rollout.transformers_engine import Config, TransformersEngine

SAMPLING = Sampling(max_tokens=16)


def engine(model: Any, *, bits: int | None) -> TransformersEngine:
    return TransformersEngine(model, tiny_model.tokenizer(), Config(mantissa_bits=bits))


def gap(trained: Any, made: TransformersEngine) -> dict[str, float]:
    """The metrics of the mismatch between a trainer that has this model and what an engine samples."""
    asked = [Request(id=str(i), prompt_tokens=ids("12+4="[: 2 + i % 4]), seed=i) for i in range(16)]
    done = made.generate(asked, sampling=SAMPLING)
    samples = [
        Sample(
            id=r.id, tokens=r.prompt_tokens + c.tokens, target_start=len(r.prompt_tokens), rollout_logprobs=c.logprobs
        )
        for r, c in zip(asked, done, strict=True)
    ]
    [batch] = pack(samples, token_budget=2048)
    assert batch.rollout_logprobs_T is not None
    model = copy.deepcopy(trained)
    use_packed(model, where="model")
    with torch.no_grad():
        spec = ForwardSpec(transforms=SAMPLING, chunk_mib=0, entropy_gradient=False)
        logprobs_T = forward(model, batch, spec).logprobs_T
    return {name: m.value for name, m in measure(mismatch(logprobs_T, batch.rollout_logprobs_T)).items()}


@pytest.mark.parametrize("arrive", ["first", "later"])
def test_the_gap_is_to_the_trainer_and_none_to_the_rounded_model(arrive: str) -> None:
    trained = tiny_model.model()
    rounded = copy.deepcopy(trained)
    with torch.no_grad():
        for weight in rounded.parameters():
            weight.copy_(round_mantissa(weight, bits=7))
    mean: dict[int | None, float] = {}
    for bits in (None, 23, 7, 3):
        made = engine(copy.deepcopy(trained) if arrive == "first" else tiny_model.model(seed=1), bits=bits)
        if arrive == "later":
            made.load_weights(1, trained.named_parameters())
        mean[bits] = gap(trained, made)["training/rollout_logprobs_diff_mean"]
        if bits == 7:
            assert gap(rounded, made)["training/rollout_logprobs_diff_max"] < 1e-4
    assert mean[None] < 1e-5 and mean[23] == mean[None]
    assert 1e-3 < mean[7] < mean[3] / 2


def test_weights_of_the_trainer_stay_as_they_are() -> None:
    trained = tiny_model.model()
    before = copy.deepcopy(trained.state_dict())
    engine(tiny_model.model(), bits=2).load_weights(1, trained.named_parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in trained.state_dict().items())


def test_weights_are_rounded_before_they_take_the_type_of_the_engine() -> None:
    trained = tiny_model.model()
    # Nearest with one bit is 1.5; by way of bfloat16, which makes it 1.25, the tie would go to 1.
    with torch.no_grad():
        trained.lm_head.weight.fill_(1.25 + 2**-20)
    sampler = tiny_model.model(dtype=torch.bfloat16)
    engine(sampler, bits=1).load_weights(1, trained.named_parameters())
    assert sampler.lm_head.weight.dtype == torch.bfloat16
    assert (sampler.lm_head.weight == 1.5).all()


def test_more_bits_than_the_weights_have_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"10 are more than the 7 of torch\.bfloat16 weights") as caught:
        engine(tiny_model.model(dtype=torch.bfloat16), bits=10)
    assert caught.value.where == "engine.mantissa_bits"
    engine(tiny_model.model(dtype=torch.bfloat16), bits=7)
