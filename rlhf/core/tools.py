"""Tools that an answer may call: what they are, how calls are written, and what comes back.

    short       [12*34]            =408
                [double 4]         =8
    json        <call>[{"name": "double", "arguments": {"x": 4}}]</call>
                <result>[{"name": "double", "results": 8}]</result>

A call ends with `]` or `</call>`; what the tool says stands behind it, up to the end of the line. `respond` gives what
is to be put there, so that a dataset of transcripts, a verifier and whoever samples with tools agree to the letter.
Tools are pure and bounded: integers of at most 60 digits, no evaluation of text as code, the same result everywhere.
What cannot be done is answered by `error` and a reason, which a model can read.

The JSON form and its tags are those of BUTTON (Chen et al. 2024, arXiv 2410.12952), where the results of a call come in
a message of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt

SHORT, JSON = "short", "json"
SYNTAXES = (SHORT, JSON)
CLOSE = {SHORT: "]", JSON: "</call>"}
"""What ends a call: a stop string for whoever samples."""

_OPEN = {SHORT: "[", JSON: "<call>"}
_MAX_CALL = 400
"""Characters of one call."""
_MAX_DIGITS = 60
_MAX_DEPTH = 50
"""Brackets and signs in one expression."""
_TOKEN = re.compile(r"\s*(?:([0-9]{1,60})|(.))")
_INTEGER = re.compile(r"-?[0-9]{1,60}")


class ToolError(Exception):
    """A call that cannot be done; the message is for the caller to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that can be called."""

    name: str
    description: str
    parameters: Mapping[str, str]
    """Name to type, `integer` or `text`; all are required."""
    run: Callable[..., int]
    """By the names of its parameters."""

    @property
    def schema(self) -> dict[str, object]:
        """As a prompt lists it."""
        return {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Example: `Call(name="double", arguments={"x": 4})`."""

    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One place of an answer where tools are called."""

    asked: str
    """From the opening of the call to its end."""
    calls: tuple[Call, ...]
    """Empty where they cannot be read."""
    start: int
    """Where it begins in the answer."""
    end: int
    """Where what the tool says begins."""


def calculate(expression: str) -> int:
    """The value of an expression of integers, `+ - *`, `/` (rounded down) and brackets.

    Raises:
        ToolError: it is none, it divides by zero, or a number in it is too large.
    """
    tokens = [number or sign for number, sign in _TOKEN.findall(expression[:_MAX_CALL].strip())]
    if tokens.count("(") + tokens.count("-") > _MAX_DEPTH:
        raise ToolError("the expression is too deep")
    value, rest = _sum(tokens)
    if rest:
        raise ToolError(f"unexpected {rest[0]}")
    return value


def _add1(x: int) -> int:
    return x + 1


def _double(x: int) -> int:
    return 2 * x


def _reverse(x: int) -> int:
    return int(str(abs(x))[::-1]) * (-1 if x < 0 else 1)


def _digits(x: int) -> int:
    return sum(map(int, str(abs(x))))


def _larger(x: int, y: int) -> int:
    return max(x, y)


def _smaller(x: int, y: int) -> int:
    return min(x, y)


_X, _XY = {"x": "integer"}, {"x": "integer", "y": "integer"}
_CALC = "the value of an arithmetic expression"
_DEFINED = (
    Tool(name="calc", description=_CALC, parameters={"expression": "text"}, run=calculate),
    Tool(name="add1", description="x plus 1", parameters=_X, run=_add1),
    Tool(name="double", description="twice x", parameters=_X, run=_double),
    Tool(name="reverse", description="the digits of x from right to left", parameters=_X, run=_reverse),
    Tool(name="digits", description="the sum of the digits of x", parameters=_X, run=_digits),
    Tool(name="larger", description="the larger of x and y", parameters=_XY, run=_larger),
    Tool(name="smaller", description="the smaller of x and y", parameters=_XY, run=_smaller),
)
TOOLS: Mapping[str, Tool] = {tool.name: tool for tool in _DEFINED}
"""By name."""


def syntax_of(prompt: Prompt, column: str) -> str:
    """How calls are written in answers to a prompt.

    Raises:
        ConfigError: the column, the caller's `syntax_column`, does not say so.
    """
    syntax = prompt.columns.get(column)
    if syntax not in SYNTAXES:
        have = ", ".join(prompt.columns) or "none"
        problem = f"prompt '{prompt.id}' does not say how calls are written (columns: {have})"
        raise ConfigError("syntax_column", problem, fix=f"name a column that holds one of {SYNTAXES}")
    return cast(str, syntax)


def write(call: Call, syntax: str) -> str:
    """A call as an answer has it."""
    if syntax == JSON:
        return f"<call>{json.dumps([{'name': call.name, 'arguments': dict(call.arguments)}])}</call>"
    values = " ".join(map(str, call.arguments.values()))
    return f"[{values}]" if call.name == "calc" else f"[{call.name} {values}]"


def respond(asked: str, allowed: Sequence[str], syntax: str) -> str:
    """What tools say to a call, as it stands behind it; it ends with a line break.

    Args:
        asked: from the opening of the call to its end.
        allowed: names of the tools that may be called.
        syntax: `short` or `json`.
    """
    results = list[tuple[str, int | str]]()
    try:
        for call in read(asked, allowed, syntax):
            results.append((call.name, execute(call, allowed)))
    except ToolError as error:
        results.append(("error", f"error: {error}"))
    if syntax == JSON:
        return f"\n<result>{json.dumps([{'name': name, 'results': result} for name, result in results])}</result>\n"
    return f"={results[-1][1]}\n"


def read(asked: str, allowed: Sequence[str], syntax: str) -> tuple[Call, ...]:
    """The calls in a text that begins with the opening of a call and ends with its end.

    Raises:
        ToolError: they cannot be read.
    """
    body = asked.removeprefix(_OPEN[syntax]).removesuffix(CLOSE[syntax])
    if len(body) > _MAX_CALL:
        raise ToolError("the call is too long")
    return _read_json(body) if syntax == JSON else (_read_short(body, allowed),)


def check(call: Call, allowed: Sequence[str]) -> Tool:
    """The tool of a call that fits its schema.

    Raises:
        ToolError: there is no such tool, or an argument is missing, unknown or of another type.
    """
    tool = TOOLS.get(call.name)
    if tool is None or call.name not in allowed:
        raise ToolError(f"there is no tool {call.name}")
    for name in call.arguments:
        if name not in tool.parameters:
            raise ToolError(f"{call.name} has no parameter {name}")
    for name, kind in tool.parameters.items():
        given = call.arguments.get(name)
        if given is None:
            raise ToolError(f"{call.name} needs {name}")
        if isinstance(given, bool) or not isinstance(given, int if kind == "integer" else str):
            raise ToolError(f"{name} of {call.name} is no {kind}")
    return tool


def execute(call: Call, allowed: Sequence[str]) -> int:
    """The result of a call.

    Raises:
        ToolError: it does not fit the tool's schema, or it cannot be done.
    """
    return _bounded(check(call, allowed).run(**call.arguments))


def exchanges(answer: str, syntax: str) -> list[Exchange]:
    """The places of an answer where tools are called, in order. A call that never ends is none."""
    found, place = list[Exchange](), 0
    while (start := answer.find(_OPEN[syntax], place)) >= 0:
        close = answer.find(CLOSE[syntax], start)
        if close < 0:
            break
        place = close + len(CLOSE[syntax])
        asked = answer[start:place]
        try:
            calls = read(asked, (*TOOLS,), syntax)
        except ToolError:
            calls = ()
        found.append(Exchange(asked=asked, calls=calls, start=start, end=place))
    return found


def _read_short(body: str, allowed: Sequence[str]) -> Call:
    name, *values = body.split(" ")
    if name not in TOOLS or name == "calc":
        return Call(name="calc", arguments={"expression": body})
    names = [*TOOLS[name].parameters]
    if len(values) != len(names) or not all(_INTEGER.fullmatch(value) for value in values):
        raise ToolError(f"{name} takes {' and '.join(names)}, which are integers")
    return Call(name=name, arguments=dict(zip(names, map(int, values), strict=True)))


def _read_json(body: str) -> tuple[Call, ...]:
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ToolError("the call is no JSON") from error
    if not isinstance(found, list) or not found:
        raise ToolError("the call is no list of calls")
    return tuple(map(_read_object, cast("list[object]", found)))


def _read_object(value: object) -> Call:
    record = cast("Mapping[str, object]", value if isinstance(value, Mapping) else {})
    name, arguments = record.get("name"), record.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, Mapping) or set(record) != {"name", "arguments"}:
        raise ToolError("a call has a name and arguments, and nothing else")
    return Call(name=name, arguments=cast("Mapping[str, object]", arguments))


def _sum(tokens: Sequence[str]) -> tuple[int, Sequence[str]]:
    value, rest = _product(tokens)
    while rest and rest[0] in "+-":
        other, following = _product(rest[1:])
        value = _bounded(value + other if rest[0] == "+" else value - other)
        rest = following
    return value, rest


def _product(tokens: Sequence[str]) -> tuple[int, Sequence[str]]:
    value, rest = _factor(tokens)
    while rest and rest[0] in "*/":
        other, following = _factor(rest[1:])
        if rest[0] == "/" and not other:
            raise ToolError("division by zero")
        value = _bounded(value * other if rest[0] == "*" else value // other)
        rest = following
    return value, rest


def _factor(tokens: Sequence[str]) -> tuple[int, Sequence[str]]:
    if not tokens:
        raise ToolError("something is missing")
    first, rest = tokens[0], tokens[1:]
    if first.isdecimal():
        return int(first), rest
    if first == "-":
        value, rest = _factor(rest)
        return -value, rest
    if first != "(":
        raise ToolError(f"unexpected {first}")
    value, rest = _sum(rest)
    if not rest or rest[0] != ")":
        raise ToolError("a bracket is open")
    return value, rest[1:]


def _bounded(value: int) -> int:
    if abs(value) >= 10**_MAX_DIGITS:
        raise ToolError("the number is too large")
    return value
