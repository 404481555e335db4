"""What is wrong with a worked answer: nothing, a step that is written wrongly, or an error that is carried on.

    dynamic    the answer that it ends with is not the gold
    static     the answer is the gold, and some step on the way is wrong
    clean      the answer is the gold, and every step is right
    right      the answer is the gold, and nobody can say of the steps
    unknown    nobody can say of the answer: its gold cannot be read, or it refuses to answer

The answer is judged by the run's first reward. A step is judged by a column of labels, where there is one (one per
step, false or below 0.5 for a wrong one), else by what that reward reports as the first wrong step, as `procedure`
does. Labels say nothing of a step that is missing; `procedure` does, since its steps are compared one by one.

Source: Havrilla and Iyer 2024, "Understanding the Effect of Noise in LLM Training Data with Algorithmic Chains of
Thought" (arXiv 2402.04004): noise that is put into a finished trace is static, or local; noise that is carried on while
it is worked out is dynamic, or global. Models that are fine-tuned bear much of the first and little of the second, so
that what is globally wrong is to be left out first. There the kinds are told by how the noise is made; here by what can
be seen of an answer: a carried error that happens to end in the gold is static, a digit of the last line replaced
afterwards is dynamic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.outcomes import FIRST_ERROR, NO_ERROR, reported
from rlhf.core.types import RewardOut, Verdict

CLEAN, RIGHT, STATIC, DYNAMIC, UNKNOWN = KINDS = ("clean", "right", "static", "dynamic", "unknown")
_BROKEN = (Verdict.CRASH, Verdict.TIMEOUT)


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Which worked answers are not learnt; by default all are."""

    leave_out: list[str] = field(default_factory=list[str])
    """Of dynamic (the answer is wrong) and static (the answer is right, a step is not)."""
    labels: str = ""
    """Column with a label per step, of prompts and of rows; empty: the first reward says which step is wrong, if it
    can."""

    def __post_init__(self) -> None:
        for name in self.leave_out:
            if name not in (STATIC, DYNAMIC):
                fix = did_you_mean(name, (STATIC, DYNAMIC))
                raise ConfigError("leave_out", f"'{name}' is not one of the choices", fix=fix)
        if self.labels and not self.leave_out:
            raise ConfigError("labels", "nothing is looked for", fix="set leave_out, or leave it empty")

    @property
    def on(self) -> bool:
        return bool(self.leave_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What was found in a worked answer."""

    kind: str
    answer: str = ""
    """As it was read."""
    step: int = NO_ERROR
    """The first wrong one, counted from 0, where it is known."""


def look(out: RewardOut, labels: Sequence[float] | None, *, where: str) -> Noise:
    """What is wrong with an answer.

    Args:
        out: what the first reward said of it.
        labels: of its steps; None where there are none.
        where: for messages.

    Raises:
        DataError: the reward failed, so that another time it may say something else.
    """
    if out.verdict in _BROKEN:
        fix = "mend the row, or the reward, or leave care.noise.leave_out empty"
        raise DataError(where, f"the answer cannot be checked: {out.reason}", fix=fix)
    if out.verdict in (Verdict.SKIPPED, Verdict.REFUSED) or out.value is None:
        return Noise(kind=UNKNOWN)
    step = _first_error(out, labels)
    answer = out.extracted or ""
    if out.verdict is not Verdict.CORRECT:
        return Noise(kind=DYNAMIC, answer=answer, step=NO_ERROR if step is None else step)
    if step is None:
        return Noise(kind=RIGHT, answer=answer)
    return Noise(kind=CLEAN if step == NO_ERROR else STATIC, answer=answer, step=step)


def labels_of(columns: Mapping[str, Any], name: str, *, where: str) -> list[float] | None:
    """The labels of steps in a column; None where it is not there.

    Raises:
        DataError: it holds no labels.
    """
    found = columns.get(name)
    if found is None:
        return None
    usable = isinstance(found, list | tuple) and all(isinstance(one, bool | int | float) for one in found)
    if not usable or not all(0 <= one <= 1 for one in found):
        problem = f"column '{name}' holds {found!r:.80}, no labels of steps"
        raise DataError(where, problem, fix="give every step true, false, or a number in [0, 1]")
    return [float(one) for one in found]


def _first_error(out: RewardOut, labels: Sequence[float] | None) -> int | None:
    """The first wrong step, counted from 0, or `NO_ERROR`; None where nobody can say."""
    if labels is not None:
        return next((n for n, label in enumerate(labels) if label < 0.5), NO_ERROR)
    found = reported(out, FIRST_ERROR)
    return None if found is None else int(found)
