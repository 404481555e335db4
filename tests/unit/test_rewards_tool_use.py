"""The reward for tool use: costs, failed and forged calls, arguments out of nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from rewards import base, tool_use
from rewards.tool_use import Config, used
from rlhf.core.errors import ConfigError
from rlhf.core.types import Message, Prompt, RewardOut, Verdict

COSTS = Config(call_cost=0.1, failure_cost=0.2)
RIGHT = "[12*34]=408\n[408+5]=413\n#### 413"


def graded(text: str, *, cfg: Config = COSTS, gold: str = "413", **columns: Any) -> RewardOut:
    columns = {"tools": ("calc",), "syntax": "short"} | columns
    question = Message(role="user", content="12*34+5=")
    prompt = Prompt(id="p", messages=(question,), gold=gold, task="tool_use", columns=columns)
    return tool_use.score(base.answered(prompt, text), cfg, None)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "value", "verdict", "calls", "failed", "forged"),
    [
        (RIGHT, 0.8, Verdict.CORRECT, 2, 0, 0),
        ("#### 413", 1.0, Verdict.CORRECT, 0, 0, 0),
        ("[12*34]=408\n#### 413", 0.9, Verdict.CORRECT, 1, 0, 0),
        ("[12*34]=409\n#### 413", 0.0, Verdict.WRONG, 1, 0, 1),
        ("[12*34]=4081\n#### 413", 0.0, Verdict.WRONG, 1, 0, 1),
        ("[1/0]=error: division by zero\n#### 413", 0.7, Verdict.CORRECT, 1, 1, 0),
        ("[double 4]=error: there is no tool double\n#### 413", 0.7, Verdict.CORRECT, 1, 1, 0),
        ("[12*34]=408\n#### 412", 0.0, Verdict.WRONG, 1, 0, 0),
        ("[12*34]=408\n[12*34]=408\n" * 8 + "#### 413", 0.0, Verdict.CORRECT, 16, 0, 0),
        ("[12*34]=408", 0.0, Verdict.NO_ANSWER, 1, 0, 0),
        ("#### many", 0.0, Verdict.NO_ANSWER, 0, 0, 0),
        ("#### ٤١٣", 0.0, Verdict.NO_ANSWER, 0, 0, 0),
    ],
)
def test_what_an_answer_earns(
    answer: str, value: float, verdict: Verdict, calls: int, failed: int, forged: int
) -> None:
    out = graded(answer)
    assert (out.value, out.verdict) == (pytest.approx(value), verdict)
    parts = out.breakdown
    assert (parts["calls"], parts["failed"], parts["forged"]) == (calls, failed, forged)
    assert parts["right"] == float(verdict is Verdict.CORRECT)


def test_calls_in_json_are_checked_against_their_schema() -> None:
    call = (
        '<call>[{"name": "double", "arguments": {"x": 4}}]</call>\n<result>[{"name": "double", "results": 8}]</result>'
    )
    keys: dict[str, Any] = {"gold": "8", "syntax": "json", "tools": ("double",)}
    assert graded(f"{call}\n#### 8", **keys).value == pytest.approx(0.9)
    broken = call.replace('"x": 4', '"x": "4"')
    assert graded(f"{broken}\n#### 8", **keys).reason == "tool_use/forged", "the tool would have said that it failed"
    honest = (
        broken.partition("\n")[0]
        + '\n<result>[{"name": "error", "results": "error: x of double is no integer"}]</result>'
    )
    assert graded(f"{honest}\n#### 8", **keys).value == pytest.approx(0.7)


def test_arguments_come_from_the_question_or_from_results() -> None:
    told: dict[str, Any] = {"question": "12*34+5=", "allowed": ["calc"], "syntax": "short"}
    assert used(RIGHT, **told).grounded == 1.0
    assert used("[12*34]=408\n[409+5]=414\n#### 414", **told).grounded == 0.75
    assert used("#### 413", **told).grounded == 1.0


def test_what_is_missing_or_too_long_is_said() -> None:
    assert graded("x" * 30_000).reason == "limit/chars"
    assert graded("#### 4", gold="four").reason == "unparsed/gold"
    with pytest.raises(ConfigError, match="names no tools"):
        graded(RIGHT, tools=None)
    with pytest.raises(ConfigError, match="how calls are written"):
        graded(RIGHT, syntax="xml")
    for wrong, where in (({"call_cost": -1}, "call_cost"), ({"max_chars": 0}, "max_chars")):
        with pytest.raises(ConfigError) as caught:
            Config(**wrong)  # type: ignore[arg-type]
        assert caught.value.where == where
