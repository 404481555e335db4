"""Keeps padding from counting as steps: which steps of an answer say what an earlier one has said.

Spaces, case and numbering aside. What a step is, `rlhf.core.steps` decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlhf.core.steps import Step, split

__all__ = ["Step", "repeats", "split"]

_NUMBERING = re.compile(r"(?:step\s*)?\d{1,4}\s*[:.)]\s+")


def repeats(steps: Sequence[Step]) -> list[bool]:
    """Whether each step repeats an earlier one."""
    seen: set[str] = set()
    out: list[bool] = []
    for step in steps:
        said = " ".join(step.text.casefold().split())
        said = said[match.end() :] if (match := _NUMBERING.match(said)) else said
        out.append(said in seen)
        seen.add(said)
    return out
