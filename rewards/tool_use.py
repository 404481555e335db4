"""Whether an answer that may call tools is right, and what its calls cost.

    task: {name: tool_use}
    rewards:
      tool_use: {call_cost: 0.1, failure_cost: 0.1}

    value = max(0, [the answer is right] - call_cost * calls - failure_cost * calls that failed)
          = 0 where a result was forged

The answer is the integer behind `####` in the last line. A call fails if it cannot be read, names no tool that the
prompt allows, does not fit the tool's parameters, or cannot be done. A result is forged if what stands behind a call is
not what the tool says; where an environment writes the results, none can be. `grounded` is the share of arguments that
the answer had from somewhere: from the question or from an earlier result.

Sources: a reward for success less the cost of calls, as in tool learning by feedback (Qin et al. 2023, arXiv
2304.08354); parsing, schema and dependency checks of composed functions after BUTTON (Chen et al. 2024, arXiv
2410.12952), which only generates dialogues and has no reward. Costs never make an answer worth less than 0.

    what happened                                  value    verdict       reason
    right, and no result is forged                 above    correct       tool_use/right
    wrong                                          0        wrong         mismatch
    a result is forged                             0        wrong         tool_use/forged
    no `####` in the last line, no integer         0        no_answer     no_answer
    longer than `max_chars`                        0        unparsable    limit/chars
    the gold is no integer                         None     unparsable    unparsed/gold

In the breakdown: `right`, `calls`, `failed`, `forged` and `grounded`. Whether tools are called only where needed shows
in `calls` of right answers to easy and to hard questions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from rewards import base
from rlhf.core import tools as toolbox
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.tools import Exchange, ToolError
from rlhf.core.types import Group, Prompt, RewardOut, Verdict

MARK = "####"
_INTEGER = re.compile(r"-?[0-9]{1,200}")


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """What calls cost."""

    call_cost: float = 0.0
    """Taken from the value of a right answer for each call."""
    failure_cost: float = 0.0
    """Taken as well for each call that failed."""
    column: str = "tools"
    """Column of the dataset row with the names of the tools that may be called."""
    syntax_column: str = "syntax"
    """Column with how calls are written: short or json."""
    max_chars: int = 20_000
    """Longer answers are worth 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("call_cost", "failure_cost"):
            if not 0 <= vars(self)[name] < math.inf:
                raise ConfigError(name, f"{vars(self)[name]} is no cost", fix="use 0.1, or 0")
        if self.max_chars < 1:
            raise ConfigError("max_chars", f"{self.max_chars} leaves no answer", fix="use 20000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How an answer used tools."""

    calls: int
    failed: int
    forged: int
    grounded: float
    """Share of arguments that come from the question or an earlier result; 1 where there are none."""


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Grade every answer of a group.

    Raises:
        ConfigError: the prompt does not say which tools may be called, and how.
    """
    allowed, syntax = _allowed(group.prompt, cfg)
    return [_out(t.text, group.prompt, allowed, syntax, cfg) for t in group.trajectories]


def used(answer: str, *, question: str, allowed: Sequence[str], syntax: str) -> Use:
    """What the calls of an answer are like."""
    known = set(_numbers(question))
    calls = failed = forged = sound = arguments = 0
    for exchange in toolbox.exchanges(answer, syntax):
        said = toolbox.respond(exchange.asked, allowed, syntax)
        forged += not f"{answer[exchange.end :]}\n".startswith(said)
        calls += max(1, len(exchange.calls))
        failed += _failures(exchange, allowed)
        given = [n for call in exchange.calls for value in call.arguments.values() for n in _numbers(str(value))]
        arguments += len(given)
        sound += sum(number in known for number in given)
        known.update(_numbers(said))
    return Use(calls=calls, failed=failed, forged=forged, grounded=sound / arguments if arguments else 1.0)


def _failures(exchange: Exchange, allowed: Sequence[str]) -> int:
    """Calls that cannot be done."""
    if not exchange.calls:
        return 1
    failed = 0
    for call in exchange.calls:
        try:
            toolbox.execute(call, allowed)
        except ToolError:
            failed += 1
    return failed


def _allowed(prompt: Prompt, cfg: Config) -> tuple[list[str], str]:
    names = prompt.columns.get(cfg.column)
    if not isinstance(names, list | tuple):
        have = ", ".join(prompt.columns) or "none"
        problem = f"prompt '{prompt.id}' names no tools in its column '{cfg.column}' (columns: {have})"
        raise ConfigError("column", problem, fix="use the task tool_use, or name the column that lists them")
    allowed = [str(name) for name in cast("Sequence[object]", names)]
    return allowed, toolbox.syntax_of(prompt, cfg.syntax_column)


def _out(text: str, prompt: Prompt, allowed: Sequence[str], syntax: str, cfg: Config) -> RewardOut:
    if not _INTEGER.fullmatch(prompt.gold.strip()):
        return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="unparsed/gold")
    if len(text) > cfg.max_chars:
        nothing = Use(calls=0, failed=0, forged=0, grounded=0.0)
        return _judged(Verdict.UNPARSABLE, "limit/chars", None, nothing, cfg)
    found = used(text, question=base.last_user_message(prompt), allowed=allowed, syntax=syntax)
    last = text.rstrip().rpartition("\n")[2].strip()
    candidate = last.removeprefix(MARK).strip()
    if not last.startswith(MARK) or not _INTEGER.fullmatch(candidate):
        return _judged(Verdict.NO_ANSWER, "no_answer", None, found, cfg)
    if found.forged:
        return _judged(Verdict.WRONG, "tool_use/forged", candidate, found, cfg)
    right = int(candidate) == int(prompt.gold)
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    return _judged(verdict, "tool_use/right" if right else "mismatch", candidate, found, cfg)


def _judged(verdict: Verdict, reason: str, candidate: str | None, found: Use, cfg: Config) -> RewardOut:
    right = verdict is Verdict.CORRECT
    cost = cfg.call_cost * found.calls + cfg.failure_cost * found.failed
    return RewardOut(
        value=max(0.0, 1.0 - cost) if right else 0.0,
        verdict=verdict,
        reason=reason,
        extracted=candidate,
        breakdown={
            "right": float(right),
            "calls": float(found.calls),
            "failed": float(found.failed),
            "forged": float(found.forged),
            "grounded": found.grounded,
        },
    )


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]{1,200}", text)]
