"""Programs told line by line as they ran: what is kept is what came out right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Execution
from rlhf.core.types import Prompt, RewardOut, Verdict
from rlhf.data.build import program_traces
from rlhf.data.build.program_traces import BEGIN, Config, trace
from rlhf.data.examples import rationale, solutions
from rlhf.loops import executing

SUM = Execution(steps=(("a = 3", "a = 3"), ("c = a + 4", "c = 7")), printed="so\n7\n")

PROGRAM = """def double(n):
    r = n * 2
    return r
a = 3
b = double(a)
for i in range(2):
    b += i
print(b)
"""


class Writer:
    """Writes programs by a list, runs them by a table, and calls answers right that end in 7."""

    def __init__(self, programs: Sequence[str], runs: dict[str, Execution]) -> None:
        self.programs, self.runs = programs, runs
        self.asked: list[Prompt] = []

    async def ask(self, prompts: Sequence[Prompt], *, begin: str) -> list[str]:
        assert begin == BEGIN
        self.asked += prompts
        return [self.programs[n % len(self.programs)] for n in range(len(prompts))]

    async def execute(self, answers: Sequence[str], *, seconds: float) -> list[Execution]:
        return [self.runs[answer.removeprefix(BEGIN)] for answer in answers]

    async def graded(self, answers: Sequence[tuple[Prompt, str]]) -> list[RewardOut]:
        right = [text.endswith("#### 7") for _, text in answers]
        return [RewardOut(value=float(r), verdict=Verdict.CORRECT if r else Verdict.WRONG) for r in right]


def built(writer: Any, **how: Any) -> list[dict[str, Any]]:
    asked = replace(group(1.0), trajectories=(), rewards=())
    return asyncio.run(program_traces.build([asked], Config(**how), writer))


def test_a_trace_says_what_each_line_gave() -> None:
    steps = (*SUM.steps, ("for x in [2, 5]:", "x = 2"), ("c += x", "c = 9"), ("p, q = 1, c", "p = 1, q = 9"))
    assert trace(replace(SUM, steps=steps)).splitlines() == [
        "a = 3",
        "c = a + 4 = 7",
        "for x in [2, 5]: x = 2",
        "c += x: c = 9",
        "p, q = 1, c: p = 1, q = 9",
    ]


def test_what_runs_and_is_right_is_kept_once() -> None:
    runs = {
        "good": SUM,
        "same": SUM,
        "other": replace(SUM, steps=(("c = 7", "c = 7"),)),
        "wrong": replace(SUM, printed="8"),
        "silent": replace(SUM, printed=" \n"),
        "broken": Execution(steps=SUM.steps, printed="7", failure="ZeroDivisionError"),
    }
    writer = Writer(["wrong", "broken", "silent", "good", "same", "other"], runs)
    [row] = built(writer, programs=6)
    assert row["completion"] == "a = 3\nc = a + 4 = 7\n#### 7" and row["program"] == BEGIN + "good"
    assert (row["rationale"], row["label"], row["program_id"]) == ("a = 3\nc = a + 4 = 7", "#### 7", "sums-1~program3")
    assert writer.asked[0].messages[-1].content.endswith("\n\n1+1=") and len({p.id for p in writer.asked}) == 6
    assert len(built(Writer(list(runs), runs), programs=6, most=0)) == 2
    assert built(Writer(["other"], runs), programs=1, min_steps=2) == []
    assert solutions.read(row, solutions.Config(), where="", name="p").prompt.solution == row["completion"]
    assert rationale.read(row, rationale.Config(), where="", name="p").label == "#### 7"


def test_programs_run_in_a_sandbox_and_are_traced() -> None:
    programs = [
        f"```python\n{PROGRAM}```",
        "```python\nx = 1\ny = x / 0\n```",
        "no program",
        "```python\nopen('/etc/passwd').read()\nprint(1)\n```",
    ]
    good, broken, none, thief = asyncio.run(executing.execute(programs, seconds=10))
    assert good.failure == "" and good.printed == "7\n"
    assert good.steps == (
        ("a = 3", "a = 3"),
        ("r = n * 2", "r = 6"),
        ("b = double(a)", "b = 6"),
        ("for i in range(2):", "i = 0"),
        ("for i in range(2):", "i = 1"),
        ("b += i", "b = 7"),
    )
    assert (broken.failure, broken.steps) == ("ZeroDivisionError", (("x = 1", "x = 1"),))
    assert none.failure == "no_block" and thief.failure and thief.printed == ""


@pytest.mark.parametrize(
    "change", [{"programs": 0}, {"most": -1}, {"answer": "####"}, {"instruction": "x"}, {"timeout_s": 0.0}]
)
def test_bad_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**change)
    assert caught.value.where == next(iter(change))
