"""Traces of sums, right, wrong and dressed up: a scorer that can add agrees with every label."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from shaping import NoTools

from rewards import base, process
from rewards.math import verify
from rewards.process import Answer, Config
from rlhf.core.errors import ConfigError
from rlhf.core.types import Message, Prompt, Verdict
from rlhf.lab.cases import Case
from rlhf.lab.corpora import traces

FOUND = list(traces.cases(traces.Config(items=12), seed=0, canary=""))


def adds_up(question: str, steps: Sequence[str]) -> list[float]:
    """Of each step, whether it and all before it are right, by doing the sum."""
    terms = [int(term) for term in question.removesuffix("=").split("+")]
    so_far, good, scores = {sum(terms[: n + 1]) for n in range(len(terms))}, True, list[float]()
    for step in steps:
        a, *rest = map(int, re.findall(r"\d+", step))
        good = good and (a + rest[0] == rest[1] and a in so_far and rest[1] in so_far if rest else a == sum(terms))
        scores.append(float(good))
    return scores


@dataclass
class Scripted:
    """Stands for a model that scores steps."""

    scores: Callable[[str, Sequence[str]], list[float]]

    def score(self, answers: Sequence[Answer], *, timeout_s: float, deadline_s: float) -> list[tuple[float, ...]]:
        return [tuple(self.scores(str(a.messages[-1]["content"]), a.steps)) for a in answers]


def accepted(case: Case, repeats: str = "ignore") -> bool:
    prompt = Prompt(id="x", messages=(Message(role="user", content=case.prompt),), gold=case.gold, task="t")
    cfg = Config(model="m", decides=True, repeats=repeats)
    [out] = process.score(base.answered(prompt, case.completion), cfg, NoTools())
    return out.verdict is Verdict.CORRECT


@pytest.mark.parametrize("repeats", ["ignore", "keep"])
def test_a_scorer_that_can_add_agrees_with_every_label(repeats: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "scorer_of", lambda *_: Scripted(adds_up))
    wrong = [(c.id, c.completion) for c in FOUND if accepted(c, repeats) != c.label]
    assert not wrong, wrong[:3]


def test_one_that_likes_everything_is_wrong_about_every_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "scorer_of", lambda *_: Scripted(lambda _, steps: [1.0] * len(steps)))
    assert [c.id for c in FOUND if accepted(c) != c.label] == [c.id for c in FOUND if not c.label]


def test_traces_end_as_they_are_called() -> None:
    assert list(traces.cases(traces.Config(items=12), seed=0, canary="")) == FOUND
    assert len({case.id for case in FOUND}) == len(FOUND) == 12 * 3 * len(traces.DRESSES)
    for case in FOUND:
        right = verify(case.completion, case.gold).verdict is Verdict.CORRECT
        assert right == (not case.category.startswith("wrong")), case.id


def test_settings_that_leave_nothing_are_refused() -> None:
    for wrong in ({"items": 0}, {"min_terms": 2}, {"max_operand": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            traces.Config(**wrong)
