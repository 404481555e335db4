"""Tools: arithmetic that is bounded, calls in both forms, schemas, and what is said to calls that cannot be done."""

from __future__ import annotations

import pytest

from rlhf.core import tools
from rlhf.core.tools import Call, ToolError, calculate, respond

ALL = [*tools.TOOLS]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12*34", 408), ("2+3*4", 14), ("(2+3)*4", 20), ("7/2", 3), ("-7/2", -4), ("2--3", 5), ("8-3-2", 3),
        (" 1 + 1 ", 2), ("-(2+3)", -5), ("100/10/5", 2),
    ],
)  # fmt: skip
def test_arithmetic_by_hand(expression: str, value: int) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("1/0", "division by zero"), ("1+", "missing"), ("(1", "bracket"), ("1 2", "unexpected 2"), ("", "missing"),
        ("__import__('os')", "unexpected _"), ("9" * 59 + "*9999", "too large"), ("2**3", r"unexpected \*"),
        ("1.5", r"unexpected \."), (")", r"unexpected \)"), ("(" * 399, "too deep"), ("-" * 399, "too deep"),
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_is_an_error_that_can_be_read(expression: str, problem: str) -> None:
    with pytest.raises(ToolError, match=problem):
        calculate(expression)


@pytest.mark.parametrize("syntax", tools.SYNTAXES)
@pytest.mark.parametrize(
    "call",
    [
        Call(name="calc", arguments={"expression": "3*(4+5)"}),
        Call(name="double", arguments={"x": -4}),
        Call(name="larger", arguments={"x": 4, "y": 9}),
    ],
)
def test_a_call_reads_back_and_gets_its_result(call: Call, syntax: str) -> None:
    text = tools.write(call, syntax)
    assert tools.read(text, ALL, syntax) == (call,)
    [found] = tools.exchanges(f"so {text}", syntax)
    assert (found.asked, found.calls, found.start) == (text, (call,), 3)
    assert str(tools.execute(call, ALL)) in respond(text, ALL, syntax)


def test_results_stand_behind_calls_as_both_forms_have_it() -> None:
    assert respond("[12*34]", ALL, "short") == "=408\n"
    assert respond("[reverse 120]", ALL, "short") == "=21\n"
    asked = '<call>[{"name": "add1", "arguments": {"x": 4}}, {"name": "digits", "arguments": {"x": 99}}]</call>'
    assert respond(asked, ALL, "json") == (
        '\n<result>[{"name": "add1", "results": 5}, {"name": "digits", "results": 18}]</result>\n'
    )


@pytest.mark.parametrize(
    ("asked", "syntax", "said"),
    [
        ("[double 4 5]", "short", "error: double takes x"),
        ("[double x]", "short", "error: double takes x"),
        ("[1/0]", "short", "error: division by zero"),
        ("[" + "1" * 500 + "]", "short", "error: the call is too long"),
        ("<call>x</call>", "json", "no JSON"),
        ("<call>[]</call>", "json", "no list"),
        ('<call>[{"name": "add1"}]</call>', "json", "a name and arguments"),
        ('<call>[{"name": "add1", "arguments": {}}]</call>', "json", "add1 needs x"),
        ('<call>[{"name": "add1", "arguments": {"x": "4"}}]</call>', "json", "x of add1 is no integer"),
        ('<call>[{"name": "add1", "arguments": {"x": true}}]</call>', "json", "x of add1 is no integer"),
        ('<call>[{"name": "add1", "arguments": {"x": 1, "y": 2}}]</call>', "json", "no parameter y"),
        ('<call>[{"name": "rm", "arguments": {}}]</call>', "json", "no tool rm"),
    ],
)
def test_a_call_that_cannot_be_done_is_answered_by_an_error(asked: str, syntax: str, said: str) -> None:
    assert said in respond(asked, ALL, syntax)


def test_a_tool_that_is_not_allowed_is_not_there() -> None:
    assert respond("[double 4]", ["calc"], "short") == "=error: there is no tool double\n"
    call = Call(name="calc", arguments={"expression": "1+1"})
    with pytest.raises(ToolError, match="no tool calc"):
        tools.execute(call, ["double"])


def test_a_call_that_never_ends_is_none_and_one_that_cannot_be_read_is_empty() -> None:
    assert tools.exchanges("[1+1", "short") == []
    [found] = tools.exchanges("<call>oops</call>", "json")
    assert found.calls == ()


def test_schemas_list_what_a_prompt_needs() -> None:
    assert tools.TOOLS["larger"].schema == {
        "name": "larger",
        "description": "the larger of x and y",
        "parameters": {"x": "integer", "y": "integer"},
    }
