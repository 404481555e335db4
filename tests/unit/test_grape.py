"""The likeliest of several right answers, by a model that says how likely each token is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.seeding import content_key
from rlhf.core.types import Group, Prompt, RewardOut, Verdict
from rlhf.data.build import grape
from rlhf.data.build.grape import Config


class Model:
    """Finds every token of an answer as likely as its table says, and calls answers that end in `!` right."""

    def __init__(self, table: Mapping[str, float], pool: Sequence[Mapping[str, Any]] = ()) -> None:
        self.table, self.pool = table, pool
        self.graded_texts: list[str] = []

    async def logprobs(self, answers: Sequence[tuple[Prompt, str]]) -> list[tuple[float, ...]]:
        return [(self.table[text],) * len(text) for _, text in answers]

    async def graded(self, answers: Sequence[tuple[Prompt, str]]) -> list[RewardOut]:
        self.graded_texts += [text for _, text in answers]
        right = [text.endswith("!") for _, text in answers]
        return [RewardOut(value=float(r), verdict=Verdict.CORRECT if r else Verdict.WRONG) for r in right]

    def rows(self, source: str, *, where: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        return {content_key(group(1.0).prompt): [row for row in self.pool if row["pool"] == source]}


def sampled(*texts: str, solution: str | None = None) -> Group:
    made = group(*[1.0] * len(texts))
    found = tuple(replace(t, text=x) for t, x in zip(made.trajectories, texts, strict=True))
    return replace(made, prompt=replace(made.prompt, solution=solution), trajectories=found)


def built(asked: Group, model: Any, **how: Any) -> list[dict[str, Any]]:
    return asyncio.run(grape.build([asked], Config(**how), model))


TABLE = {"abcd": -0.5, "ab": -0.9, "x!": -0.1, "y!": -0.2}
"""By sum: x! -0.2, y! -0.4, ab -1.8, abcd -2.0; by mean: x! -0.1, y! -0.2, abcd -0.5, ab -0.9."""


def test_a_sum_favours_short_answers_and_a_mean_does_not() -> None:
    asked = sampled("abcd", "ab")
    assert [row["completion"] for row in built(asked, Model(TABLE), normalize="sum")] == ["ab"]
    [row] = built(asked, Model(TABLE))
    assert (row["completion"], row["source"], row["score"]) == ("abcd", "0-0-sums-1-0", -0.5)
    assert row["scores"] == [
        {"source": "0-0-sums-1-0", "logprob": -2.0, "tokens": 4},
        {"source": "0-0-sums-1-1", "logprob": -1.8, "tokens": 2},
    ]
    assert built(asked, Model(TABLE), pick="least")[0]["completion"] == "ab"


def test_answers_come_from_everywhere_and_only_right_ones_take_part() -> None:
    pool = [
        {"pool": "a", "completion": "ab", "verdict": "correct"},
        {"pool": "a", "completion": "wrong", "verdict": "wrong"},
        {"pool": "b", "completion": "y!"},
        {"pool": "b", "completion": "no"},
    ]
    model = Model(TABLE, pool)
    [row] = built(sampled("abcd", "ab", solution="x!"), model, pool=["a", "b"])
    assert (row["completion"], row["source"]) == ("x!", "solution")
    assert [one["source"][-8:] for one in row["scores"]] == ["sums-1-0", "sums-1-1", "solution", "b"]
    assert model.graded_texts == ["x!", "y!", "no"], "what has a verdict is not graded again"
    [row] = built(sampled(solution="x!"), model, pool=["a"], solution=False)
    assert row["completion"] == "ab", "no sample of its own is needed"
    assert built(sampled(solution="no"), model) == [], "nothing right, no row"


def test_a_random_one_is_the_same_every_time() -> None:
    texts = {"abcd": -1.0, "ab": -1.0, "x!": -1.0, "y!": -1.0}
    picked = [
        built(replace(g, prompt=replace(g.prompt, id=f"q{n}")), Model(texts), pick="random")[0]["completion"]
        for n in range(60)
        for g in [sampled(*texts)]
    ]
    assert set(picked) == set(texts)
    assert (
        picked[0]
        == built(replace(sampled(*texts), prompt=replace(group(1.0).prompt, id="q0")), Model(texts), pick="random")[0][
            "completion"
        ]
    )


def test_no_likelihood_is_an_error_and_so_is_a_row_without_an_answer() -> None:
    with pytest.raises(DataError, match="finite"):
        built(sampled("ab"), Model({"ab": float("nan")}))
    with pytest.raises(DataError, match="completion"):
        built(sampled("ab"), Model(TABLE, [{"pool": "a", "chosen": "x"}]), pool=["a"])
    for change in ({"pick": "best"}, {"normalize": "max"}):
        with pytest.raises(ConfigError):
            Config(**change)
