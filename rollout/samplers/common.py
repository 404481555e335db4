"""How candidates are chosen between: by their scores, and by the answers that they agree on. Used by the samplers.

A candidate that could not be scored is never preferred to one that was; of equals the first is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlhf.core.errors import ConfigError
from rlhf.core.search import Scored


def check_positive(**values: int) -> None:
    """Raise ConfigError for the first number that is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ConfigError(name, f"{value} is too few", fix="use 1 or more")


def worth(scored: Scored) -> float:
    """Its score, minus infinity where there is none."""
    return -math.inf if scored.value is None else scored.value


def best(scored: Sequence[Scored]) -> int:
    """Place of the one with the highest score."""
    return max(range(len(scored)), key=lambda i: worth(scored[i]))


def clusters(answers: Sequence[str | None]) -> dict[str, list[int]]:
    """Places of the candidates with each answer, in the order in which answers were first seen; those without an answer
    are in none."""
    out: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        if answer is not None:
            out.setdefault(answer, []).append(place)
    return out


def by_size(groups: dict[str, list[int]]) -> list[list[int]]:
    """Clusters, the largest first, of equal ones that which was seen first."""
    return sorted(groups.values(), key=lambda places: -len(places))
