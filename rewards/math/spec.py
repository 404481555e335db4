"""How mathematical answers are found and compared: the settings of the `math` reward, usable without a reward.

Example: `Spec(markers=["boxed"])` accepts nothing but boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.core.errors import ConfigError, did_you_mean

MARKERS = ("boxed", "####", "<answer>", "answer is", "A:", "bare", "ending", "formula", "number")
"""Every way to mark an answer, by priority."""
STRICT = MARKERS[:-2]
"""Those that leave no choice which candidate is meant."""

_CHOICES = {
    "symbolic_mismatch": ("wrong", "ungraded"),
    "percent": ("either", "strict"),
    "units": ("optional", "ignored", "required"),
}


def _strict() -> list[str]:
    return list(STRICT)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """How answers are read and compared."""

    markers: list[str] = field(default_factory=_strict)
    r"""Accepted ways to mark the answer; the first that occurs provides the one candidate, its last occurrence counts.
    `boxed`: \boxed{} or \fbox{}. `####`: the rest of that line. `<answer>`: between tags. `answer is`: the sentence
    behind it, or behind `Answer:`. `A:`: a line that begins so. `bare`: the whole completion is one word or formula.
    `ending`: the formula that the completion ends with. `formula`: the last $…$, and `number`: the last number, which
    are often not the answer; not among the defaults, for lenient evaluation only: training on them rewards talking."""
    symbolic_mismatch: str = "wrong"
    """What a different answer gets to a gold that our grammar does not know, or that is a sum or an integral, so that
    nothing can tell whether both are the same: `wrong` (0.0) or `ungraded` (None). Most answers that differ are wrong;
    leaving all of them out would train on the correct ones alone."""
    percent: str = "either"
    """`either`: a percent sign divides by 100 or is left out, 33.5% is 0.335 and 33.5. `strict`: it always divides."""
    units: str = "optional"
    """`optional`: units count only where both answers have one, 5 m is 5 but not 5 cm. `ignored`: never. `required`: an
    answer must have the gold's."""
    require_reduced: bool = False
    """Refuse fractions that are not in lowest terms."""
    integer_gold_needs_literal: bool = False
    """Refuse `12*13` or `4/2` where the gold is an integer: the question must not be echoed as its answer."""
    sympy: bool = False
    """Ask sympy, in a killable worker, about what the exact layers do not calculate: sums, products and integrals."""
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
        for name, choices in _CHOICES.items():
            if (given := vars(self)[name]) not in choices:
                raise ConfigError(name, f"'{given}' is not one of the choices", fix=did_you_mean(given, choices))
        if self.sympy_timeout_s <= 0:
            raise ConfigError("sympy_timeout_s", f"{self.sympy_timeout_s} leaves no time", fix="use 1")
