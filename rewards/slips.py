"""Which errors the lines of a worked calculation have, by kind. Looks at how, not whether, a question was answered.

    rewards:
      math: {}
      slips: {weight: 0}              # measured only

A column of the dataset row holds the right lines, each `a op b = c` in whole numbers, `c` being the `a` of the next. An
answer is read line by line up to the one that begins with `####`, and each line is held against what the answer itself
has come to so far, so that an error counts where it is made and not again in what follows from it:

    kind            a line that
    value           has a wrong result for what stands before its equals sign; or a last line that is not the result
    substitution    has another number than the result so far or the next term
    term            leaves a term out (`a=c`); an answer that ends before its last line
    operator        has another operator
    swap            has its two numbers in each other's place
    other           is of no such form, or one too many

These are the kinds of the errors that RISE has edited into right steps (Xu et al. 2024, arXiv 2410.06638;
`rlhf.data.edits`), without that of words. A line may have several. Only whole numbers are read.

    value = 1 where no line has an error, else 0

In the breakdown: `any`, and each kind, 1 where the answer has an error of it. An answer can be right in spite of its
errors, when they cancel each other, and without any line at all. This reward judges no answer: its verdict is
`skipped`, and it must not be the first one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from rewards import base
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, Prompt, RewardOut, Verdict

REASON = "slips"
KINDS = ("value", "substitution", "term", "operator", "swap", "other")
MARK = "####"
_LINE = re.compile(r"(-?\d{1,18})([+\-*/])(-?\d{1,18})=(-?\d{1,18})")
_RESULT = re.compile(r"=(-?\d{1,18})$")
_BARE = re.compile(r"(-?\d{1,18})=(-?\d{1,18})")


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """Where the right lines are."""

    column: str = "steps"
    """Column of the dataset row with the right lines, a list of texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A calculation. `Line(left=3, operator="+", right=5, result=8)`"""

    left: int
    operator: str
    right: int
    result: int

    @property
    def holds(self) -> bool:
        """Whether the result is that of the calculation; a quotient has no remainder."""
        if self.operator == "/":
            return self.right != 0 and self.left == self.right * self.result
        left, right = self.left, self.right
        return self.result == {"+": left + right, "-": left - right, "*": left * right}[self.operator]


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """The errors of every answer of a group.

    Raises:
        ConfigError: the column is not there, or holds no calculations.
    """
    gold = _gold(group.prompt, cfg)
    return [_out(measure(trajectory.text, gold)) for trajectory in group.trajectories]


def read(text: str) -> Line | None:
    """A line of the form `a op b = c`; None for any other."""
    found = _LINE.fullmatch(text.replace(" ", ""))
    return found and Line(left=int(found[1]), operator=found[2], right=int(found[3]), result=int(found[4]))


def measure(text: str, gold: Sequence[Line]) -> set[str]:
    """The kinds of errors in an answer.

    Args:
        gold: the right lines, at least one.
    """
    written = [line.replace(" ", "") for line in text.strip().split("\n") if line.strip()]
    ended = [n for n, line in enumerate(written) if line.startswith(MARK)]
    lines, last = (written[: ended[0]], written[ended[0]]) if ended else (written, None)
    kinds: set[str] = {"term"} if len(lines) < len(gold) else set()
    kinds |= {"other"} if len(lines) > len(gold) or last is None else set()
    so_far = gold[0].left
    for line, right in zip(lines, gold, strict=False):
        kinds |= _of_line(line, so_far, right)
        result = _RESULT.search(line)
        so_far = int(result[1]) if result else right.result
    if last is not None and last.removeprefix(MARK) != str(so_far):
        kinds.add("value")
    return kinds


def _of_line(text: str, so_far: int, right: Line) -> set[str]:
    line = read(text)
    if line is None:
        return {"term"} if _BARE.fullmatch(text) else {"other"}
    kinds = set[str]() if line.holds else {"value"}
    if line.operator != right.operator:
        kinds.add("operator")
    if (line.left, line.right) == (so_far, right.right):
        return kinds
    return kinds | {"swap" if (line.right, line.left) == (so_far, right.right) else "substitution"}


def _out(kinds: set[str]) -> RewardOut:
    parts = {"any": float(bool(kinds))} | {kind: float(kind in kinds) for kind in KINDS}
    return RewardOut(value=1 - parts["any"], verdict=Verdict.SKIPPED, reason=REASON, breakdown=parts)


def _gold(prompt: Prompt, cfg: Config) -> list[Line]:
    found = prompt.columns.get(cfg.column)
    texts = cast("Sequence[object]", found) if isinstance(found, list | tuple) else ()
    lines = [line for text in texts if isinstance(text, str) and (line := read(text)) is not None]
    if not lines or len(lines) != len(texts):
        problem = f"the row of {prompt.id} has no calculations in '{cfg.column}'"
        raise ConfigError("column", problem, fix="name the column with the right lines, such as ['3+5=8', '8+9=17']")
    return lines
