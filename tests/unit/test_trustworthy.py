"""A softmax over probabilities: by hand, its bound, its limits."""

from __future__ import annotations

import math
from random import Random

import pytest
import tiny_model

from rlhf.core.errors import ConfigError
from rlhf.core.training import Sample, Stream
from rlhf.data.transforms import trustworthy
from rlhf.data.transforms.trustworthy import Config


def recalibrated(*probs: float, c: float = 0.3) -> list[float]:
    logprobs = tuple(math.log(p) for p in probs)
    sample = Sample(id="a", tokens=(7, 8), target_start=1, topk_logprobs=(logprobs,))
    found = trustworthy.transform(
        sample, Config(c=c), rng=Random(0), done=0.0, tokenizer=tiny_model.tokenizer()
    ).topk_logprobs
    assert found is not None
    return [math.exp(x) for x in found[0]]


def test_by_hand() -> None:
    powers = [math.exp(p / 0.3) for p in (0.7, 0.2, 0.1)]
    assert recalibrated(0.7, 0.2, 0.1) == pytest.approx([x / sum(powers) for x in powers], abs=1e-12)


def test_no_token_can_get_all() -> None:
    sure = recalibrated(0.999996, 1e-6, 1e-6, 1e-6, 1e-6)
    assert sum(sure) == pytest.approx(1) and sure[0] == pytest.approx(0.875, abs=1e-3)


def test_a_low_c_leaves_one_and_a_high_one_levels_all() -> None:
    assert recalibrated(0.6, 0.4, c=0.01)[0] == pytest.approx(1)
    assert recalibrated(0.6, 0.4, c=1e6) == pytest.approx([0.5, 0.5], abs=1e-6)
    assert recalibrated(0.9) == [1.0], "a single token has it all"


def test_what_it_declares_and_refuses() -> None:
    assert trustworthy.streams(Config()) == (Stream.TOPK,)
    with pytest.raises(ConfigError, match=r"c: 0\.0 is out of range"):
        Config(c=0.0)
