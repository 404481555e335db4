"""Whether an answer has the form that was asked for: marks in a given order, each once, with text between them.

    rewards:
      math: {}
      format: {template: '<think>{}</think>{*}<answer>{}</answer>', weight: 0.2}

The format reward of DeepSeek-R1 (arXiv 2501.12948, section 2.2.2; open-r1's `format_reward`). A template is made of
marks, which stand as they are, and of places where the model writes: `{}` something, `{*}` anything or nothing. Every
mark has to occur exactly once, in order. Where a template begins or ends with a mark, white space alone may stand
outside.

    value = 1 when all of it holds, else 0; `share` of the breakdown is the share of marks that were found in order

Nothing of an answer is run through a regular expression: marks are looked for one after the other, in time linear in
its length. The verdict is `skipped`: form says nothing about being right. What stands in a place is not looked at, so a
format reward that is worth more than being right will be earned by empty talk between the right marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rewards import base
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict

REASON = "format"
_PLACE = re.compile(r"(\{\*?\})")


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """The form."""

    template: str = "<think>{}</think>{*}<answer>{}</answer>"
    """Marks in their order; `{}` where the model must write something, `{*}` where it may."""

    def __post_init__(self) -> None:
        super().__post_init__()
        marks = _split(self.template)[1]
        if not marks:
            raise ConfigError("template", "has no mark to look for", fix="write one, like '<answer>{}</answer>'")
        for mark in marks:
            if any(mark in other for other in marks if other is not mark):
                problem = f"the mark '{mark}' stands in another one too"
                raise ConfigError("template", problem, fix="give every mark a name of its own")
        if re.search(r"\}\s*\{", self.template):
            raise ConfigError("template", "has two places without a mark between them", fix="put one between them")


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """The form of every answer of a group."""
    places, marks = _split(cfg.template)
    return [_out(trajectory.text, places, marks) for trajectory in group.trajectories]


def _split(template: str) -> tuple[list[str], list[str]]:
    """What may stand around the marks, one more than there are marks (`{}`, `{*}`, or empty for nothing), and the
    marks."""
    places, marks = [""], list[str]()
    for part in _PLACE.split(template):
        if _PLACE.fullmatch(part):
            places[-1] = part
        elif part.strip():
            marks.append(part.strip())
            places.append("")
    return places, marks


def _out(text: str, places: Sequence[str], marks: Sequence[str]) -> RewardOut:
    found, end, filled = 0, 0, True
    for mark, place in zip(marks, places, strict=False):
        start = text.find(mark, end)
        if start < 0 or text.count(mark) > 1:
            break
        filled = filled and _fits(text[end:start], place)
        found, end = found + 1, start + len(mark)
    whole = found == len(marks) and filled and _fits(text[end:], places[-1])
    measured = {"share": found / len(marks)}
    return RewardOut(value=float(whole), verdict=Verdict.SKIPPED, reason=REASON, breakdown=measured)


def _fits(text: str, place: str) -> bool:
    return place == "{*}" or (bool(text.strip()) == (place == "{}"))
