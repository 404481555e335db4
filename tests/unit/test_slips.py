"""Errors of worked calculations by kind: each by hand, what is read, and what has no lines to hold against."""

from __future__ import annotations

from typing import Any

import pytest

from rewards import base, slips
from rewards.slips import Config, Line, measure, read, score
from rlhf.core.errors import ConfigError
from rlhf.core.types import Message, Prompt, RewardOut, Verdict
from rlhf.tasks import sums

GOLD = [Line(left=3, operator="+", right=5, result=8), Line(left=8, operator="+", right=9, result=17)]


def graded(text: str, steps: Any = ("3+5=8", "8+9=17")) -> RewardOut:
    prompt = Prompt(
        id="p", messages=(Message(role="user", content="3+5+9="),), gold="17", task="sums", columns={"steps": steps}
    )
    [out] = score(base.answered(prompt, text), Config(), None)  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("3+5=8\n8+9=17\n#### 17", set()),
        ("3 + 5 = 8\n\n8 + 9 = 17\n#### 17\nand more", set()),
        ("3+5=9\n9+9=18\n#### 18", {"value"}),
        ("3+5=8\n8+9=17\n#### 18", {"value"}),
        ("3+6=9\n9+9=18\n#### 18", {"substitution"}),
        ("3+6=8\n8+9=17\n#### 17", {"substitution", "value"}),
        ("3=8\n8+9=17\n#### 17", {"term"}),
        ("3+5=8\n#### 8", {"term"}),
        ("", {"term", "other"}),
        ("3-5=-2\n-2+9=7\n#### 7", {"operator"}),
        ("3*5=8\n8+9=17\n#### 17", {"operator", "value"}),
        ("5+3=8\n8+9=17\n#### 17", {"swap"}),
        ("3+5=8\n8+9=17\n17+0=17\n#### 17", {"other"}),
        ("3+5=8\n8+9=17", {"other"}),
        ("three\n8+9=17\n#### 17", {"other"}),
    ],
)
def test_kinds(text: str, kinds: set[str]) -> None:
    assert measure(text, GOLD) == kinds
    out = graded(text)
    assert out.value == float(not kinds) and out.verdict is Verdict.SKIPPED
    assert {name for name, there in out.breakdown.items() if there} == kinds | ({"any"} if kinds else set())
    assert set(out.breakdown) == {"any", *slips.KINDS}


def test_an_error_counts_once_and_not_in_what_follows_from_it() -> None:
    """The second line is right for the wrong number that it goes on from."""
    assert measure("3+5=7\n7+9=16\n#### 16", GOLD) == {"value"}
    assert measure("3+5=7\n8+9=17\n#### 17", GOLD) == {"value", "substitution"}, "it goes on from another number"


def test_all_operators_are_worked_out() -> None:
    assert all((line := read(text)) is not None and line.holds for text in ("6/3=2", "2-5=-3", "-2*3=-6", "-2+-1=-3"))
    assert all((line := read(text)) is not None and not line.holds for text in ("7/3=2", "6/0=0", "2-5=3"))
    assert read("3+5") is None and read("1.5+1=2.5") is None and read("3+5=8=8") is None


def test_the_traces_of_the_task_have_the_errors_that_it_put_in() -> None:
    found = sums.build(sums.Config(noise=0.3, train_size=200, held_out_size=20, operation="subtract"), seed=3)
    for prompt in found.train_prompts:
        [out] = score(base.answered(prompt, prompt.solution or ""), Config(), None)  # type: ignore[arg-type]
        assert bool(out.breakdown["value"]) == bool(prompt.columns["wrong_steps"])
        assert out.breakdown["any"] == out.breakdown["value"]


@pytest.mark.parametrize("steps", [None, "3+5=8", [], ["3+5=8", "so 17"], [8, 17]])
def test_a_row_without_right_lines_is_refused(steps: Any) -> None:
    with pytest.raises(ConfigError, match=r"^column: the row of p has no calculations in 'steps'"):
        graded("3+5=8", steps)
