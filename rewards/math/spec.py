"""How mathematical answers are found and compared: the settings of the `math` reward, usable without a reward.

Example: `Spec(markers=["boxed"])` accepts nothing but boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.core.errors import ConfigError, did_you_mean

MARKERS = ("boxed", "####", "<answer>", "answer is", "A:", "bare", "formula")
"""Every way to mark an answer, by priority."""
STRICT = MARKERS[:-1]
"""Those that leave no choice which candidate is meant."""

_MISMATCHES = ("wrong", "ungraded")


def _strict() -> list[str]:
    return list(STRICT)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """How answers are read and compared."""

    markers: list[str] = field(default_factory=_strict)
    r"""Accepted ways to mark the answer; the first that occurs provides the one candidate, its last occurrence counts.
    `boxed`: \boxed{} or \fbox{}. `####`: the rest of that line. `<answer>`: between tags. `answer is`: the sentence
    behind it, or behind `Answer:`. `A:`: a line that begins so. `bare`: the whole completion is one word or formula.
    `formula`: the last $…$, which is often not the answer; not among the defaults, for evaluation only."""
    symbolic_mismatch: str = "wrong"
    """What a different answer to a gold that is no number, text or list of numbers gets, when nothing can tell whether
    both are the same: `wrong` (0.0) or `ungraded` (None). Most answers that differ are wrong; leaving all of them out
    would train on the correct ones alone. `ungraded` is for data whose golds have many equal forms."""
    require_reduced: bool = False
    """Refuse fractions that are not in lowest terms."""
    integer_gold_needs_literal: bool = False
    """Refuse `12*13` or `4/2` where the gold is an integer: the question must not be echoed as its answer."""
    sympy: bool = False
    """Ask sympy, in a killable worker, about pairs that the exact layers cannot decide."""
    sympy_timeout_s: float = 1.0
    """Wall-clock deadline of one such question."""

    def __post_init__(self) -> None:
        for marker in self.markers:
            if marker not in MARKERS:
                raise ConfigError("markers", f"'{marker}' is no marker", fix=did_you_mean(marker, MARKERS))
        if not self.markers:
            raise ConfigError(
                "markers", "is empty, so no answer can be found", fix=f"name some of {', '.join(MARKERS)}"
            )
        if self.symbolic_mismatch not in _MISMATCHES:
            fix = did_you_mean(self.symbolic_mismatch, _MISMATCHES)
            raise ConfigError("symbolic_mismatch", f"'{self.symbolic_mismatch}' is not one of the choices", fix=fix)
        if self.sympy_timeout_s <= 0:
            raise ConfigError("sympy_timeout_s", f"{self.sympy_timeout_s} leaves no time", fix="use 1")
