"""Kimi's length reward: relative to the other answers of a prompt."""

from __future__ import annotations

import random

import pytest
from shaping import NoTools, answers

from rewards.group_length import Config, score, value
from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError
from rlhf.core.types import RewardOut, Verdict

RIGHT, WRONG = "#### 2", "#### 3"


def graded(texts: list[str], lengths: list[int]) -> list[RewardOut]:
    return score(answers(texts, lengths=lengths), Config(), NoTools())


def test_by_hand() -> None:
    outs = graded([RIGHT, RIGHT, RIGHT, WRONG, WRONG], [10, 20, 30, 10, 30])
    assert [out.value for out in outs] == [0.5, 0.0, -0.5, 0.0, -0.5]
    assert [out.verdict for out in outs] == [Verdict.CORRECT] * 3 + [Verdict.WRONG] * 2
    assert [out.breakdown["correct"] for out in outs] == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_as_open_r1_has_it() -> None:
    rng = random.Random(3)
    for _ in range(50):
        lengths = [rng.randrange(1, 40) for _ in range(6)]
        right = [rng.random() < 0.5 for _ in lengths]
        got = [out.value for out in graded([RIGHT if r else WRONG for r in right], lengths)]
        if max(lengths) == min(lengths):
            assert got == [0.0] * 6
            continue
        lam = [0.5 - (n - min(lengths)) / (max(lengths) - min(lengths)) for n in lengths]
        assert got == pytest.approx([x if r else min(0, x) for x, r in zip(lam, right, strict=True)])


def test_answers_of_one_length_and_single_ones_get_nothing() -> None:
    assert [out.value for out in graded([RIGHT, WRONG], [9, 9])] == [0.0, 0.0]
    assert [out.value for out in graded([RIGHT], [9])] == [0.0]
    assert value(5, least=5, most=5, correct=True) == 0.0


def test_what_cannot_be_graded_has_no_value_and_is_no_measure() -> None:
    user = {"name": "user_function", "path": "test_group_length.of_text", "isolate": False}
    cfg = Config(verifier=build_component("rewards", user, "verifier"))
    outs = score(answers(["right", "none", "wrong"], lengths=[10, 99, 20]), cfg, NoTools())
    assert [out.value for out in outs] == [0.5, None, -0.5]


def of_text(completions: list[str]) -> list[float | None]:
    return [{"right": 1.0, "wrong": 0.0}.get(text) for text in completions]


def test_a_verifier_that_judges_nothing_is_refused() -> None:
    cfg = Config(verifier=build_component("rewards", {"name": "repetition"}, "verifier"))
    with pytest.raises(ConfigError, match="does not judge answers"):
        score(answers([RIGHT, WRONG]), cfg, NoTools())
