"""DAPO's soft overlong punishment."""

from __future__ import annotations

import pytest
from shaping import NoTools, answers

from rewards.overlong import Config, score, value
from rlhf.core.errors import ConfigError
from rlhf.core.types import Verdict


@pytest.mark.parametrize(
    ("length", "expected"), [(0, 0), (16384, 0), (16385, -1 / 4096), (18432, -0.5), (20480, -1), (30000, -1)]
)
def test_the_paper_s_own_numbers(length: int, expected: float) -> None:
    assert value(length, Config(max_length=20480, buffer=4096)) == pytest.approx(expected, abs=1e-12)


def test_the_penalty_scales_it_and_the_breakdown_says_who_is_in_the_buffer() -> None:
    cfg = Config(max_length=10, buffer=4, penalty=2.0)
    outs = score(answers(["", "", ""], lengths=[6, 8, 10]), cfg, NoTools())
    assert [out.value for out in outs] == [0.0, -1.0, -2.0]
    assert [out.breakdown["in_buffer"] for out in outs] == [0.0, 1.0, 1.0]
    assert {out.verdict for out in outs} == {Verdict.SKIPPED}


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"buffer": 4}, "max_length"),
        ({"max_length": 10}, "buffer"),
        ({"max_length": 10, "buffer": 11}, "buffer"),
        ({"max_length": 10, "buffer": 2, "penalty": 0.0}, "penalty"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)  # type: ignore[arg-type]
    assert caught.value.where == where
