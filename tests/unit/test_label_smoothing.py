"""A fixed amount from the likeliest token to the others: by hand, and never below an equal share."""

from __future__ import annotations

import math
from random import Random

import pytest
import tiny_model

from rlhf.core.errors import ConfigError
from rlhf.core.training import Sample, Stream
from rlhf.data.transforms import label_smoothing
from rlhf.data.transforms.label_smoothing import Config


def smoothed(*probs: float, amount: float = 0.1) -> list[float]:
    logprobs = tuple(math.log(p) for p in probs)
    sample = Sample(id="a", tokens=(7, 8), target_start=1, topk_logprobs=(logprobs,))
    found = label_smoothing.transform(
        sample, Config(amount=amount), rng=Random(0), done=0.0, tokenizer=tiny_model.tokenizer()
    ).topk_logprobs
    assert found is not None
    return [math.exp(x) for x in found[0]]


def test_by_hand() -> None:
    assert smoothed(0.7, 0.2, 0.1) == pytest.approx([0.6, 0.25, 0.15], abs=1e-12)
    assert smoothed(0.35, 0.1, 0.05) == pytest.approx([0.6, 0.25, 0.15], abs=1e-12), (
        "what is left is divided by its sum"
    )


def test_the_likeliest_stays_the_likeliest() -> None:
    assert smoothed(0.35, 0.33, 0.32) == pytest.approx([1 / 3, 0.33 + 1 / 120, 0.32 + 1 / 120], abs=1e-12)
    assert smoothed(0.4) == [1.0], "a single token has none to give to"
    assert smoothed(0.7, 0.3, amount=0.0) == pytest.approx([0.7, 0.3])


def test_what_it_declares_and_refuses() -> None:
    assert label_smoothing.streams(Config()) == (Stream.TOPK,)
    with pytest.raises(ConfigError, match="amount"):
        Config(amount=1.0)
