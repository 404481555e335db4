"""What a policy found, by question: right answers once, the longest right beginnings, and where they come from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, RewardOut, Start, Verdict
from rlhf.data.build import self_sampled
from rlhf.data.build.self_sampled import Config
from rlhf.data.examples import answers

RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG


class Reaches:
    """Stands for a policy that goes on rightly from these beginnings, and from no other."""

    def __init__(self, *beginnings: str) -> None:
        self.beginnings, self.asked = beginnings, list[str]()

    async def go_on(self, starts: Sequence[Start], *, count: int) -> list[Group]:
        out: list[Group] = []
        for start in starts:
            kept = start.trajectory.text[: start.characters]
            self.asked.append(kept)
            verdict = RIGHT if kept in self.beginnings else WRONG
            rewards = (RewardOut(value=float(verdict is RIGHT), verdict=verdict),) * count
            out.append(Group(prompt=start.prompt, trajectories=(start.trajectory,) * count, rewards=rewards))
        return out


def sampled(*texts: tuple[str, Verdict], solution: str | None = "a\nb\nc") -> Group:
    made = group(*[float(v is RIGHT) for _, v in texts], verdicts=[v for _, v in texts])
    trajectories = tuple(replace(t, text=text) for t, (text, _) in zip(made.trajectories, texts, strict=True))
    return replace(made, prompt=replace(made.prompt, solution=solution), trajectories=trajectories)


def row(found: Group, continuer: Reaches, **keys: Any) -> dict[str, Any]:
    [made] = asyncio.run(self_sampled.build([found], Config(**keys), continuer))
    return made


def test_right_answers_stand_once_behind_the_solution() -> None:
    found = row(sampled(("x\nc", RIGHT), ("a\nb\nc", RIGHT), ("x\nc", RIGHT), ("z", WRONG)), Reaches())
    assert (found["completions"], found["completion_ids"]) == (["a\nb\nc", "x\nc"], [None, "0-0-sums-1-0"])
    assert found["beginnings"] == [] and found["prompt_id"] == "sums-1"


def test_a_wrong_answer_gives_its_longest_right_beginning() -> None:
    found = row(sampled(("a\nq\nr\ns", WRONG)), Reaches("a\n", "a\nq\n"))
    assert (found["beginnings"], found["beginning_ids"]) == (["a\nq\n"], ["0-0-sums-1-0"])


def test_a_beginning_that_is_part_of_something_longer_is_left_out() -> None:
    texts = (("a\nq\nr", WRONG), ("p\nq\nr", WRONG), ("p\nz\nr", WRONG), ("p\nq\nx", WRONG))
    found = row(sampled(*texts), Reaches("a\n", "p\n", "p\nq\n"))
    assert found["beginnings"] == ["p\nq\n"], (
        "`a` begins the solution, `p` another beginning, and equal ones count once"
    )


def test_nothing_is_continued_where_no_beginnings_are_wanted() -> None:
    continuer = Reaches("a\n")
    assert row(sampled(("a\nq\nr", WRONG)), continuer, completions=0)["beginnings"] == []
    assert continuer.asked == []


def test_a_question_without_any_answer_has_no_row() -> None:
    found = sampled(("z", WRONG), solution=None)
    assert asyncio.run(self_sampled.build([found], Config(), Reaches())) == []
    doubtful = sampled(("z", WRONG))
    assert asyncio.run(self_sampled.build([doubtful], Config(solution=False), Reaches())) == []


def test_rows_can_be_learnt_from() -> None:
    made = row(sampled(("x\nc", RIGHT), ("p\nq\nr", WRONG)), Reaches("p\n"))
    example = answers.read(made, answers.Config(), where="", name="mml-1")
    assert (example.completions, example.beginnings) == (("a\nb\nc", "x\nc"), ("p\n",))


def test_impossible_settings_are_refused() -> None:
    for keys in ({"completions": -1}, {"separator": ""}):
        with pytest.raises(ConfigError) as caught:
            Config(**keys)  # type: ignore[arg-type]
        assert [caught.value.where] == list(keys)
