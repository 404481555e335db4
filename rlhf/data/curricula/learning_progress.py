"""Groups of prompts whose success rate is moving, up or down; what is mastered and what is out of reach waits.

    share of group g = floor / groups + (1 - floor) |fast_g - slow_g| / sum over groups of the same

`fast` and `slow` are two running success rates of a group with a shorter and a longer memory: their difference is its
progress. A group that loses what it had counts as much as one that learns, so that it is repeated. Groups that were not
seen yet come first, evenly; without any progress the share is even. Within a group all prompts are drawn alike.

Source: Teacher-Student Curriculum Learning, Matiisen et al. 2017 (arXiv 1707.00183), the absolute slope of the learning
curve with some exploration; the difference of two running means is that of Kanitscheider et al. 2021 (arXiv
2106.14876). They draw a task by a softmax or a power of it; we draw in proportion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.modules import GroupKnown, Known


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much is left to groups that do not move."""

    floor: float = 0.2
    """Share of the draws that is spread evenly over all groups."""

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            fix = "use 0.2; at 0 a group that stands still would never be tried again"
            raise ConfigError("floor", f"{self.floor} is not above 0 and at most 1", fix=fix)


def weights(known: Sequence[Known], cfg: Config, *, groups: Mapping[str, GroupKnown], done: float) -> list[float]:
    """One per prompt."""
    sizes = Counter(one.group for one in known)
    shares = _shares({name: groups[name] for name in sizes}, cfg.floor)
    return [shares[one.group] / sizes[one.group] for one in known]


def _shares(groups: Mapping[str, GroupKnown], floor: float) -> dict[str, float]:
    if all(group.seen for group in groups.values()):
        moved = {name: abs(group.fast - group.slow) for name, group in groups.items()}
    else:
        moved = {name: float(not group.seen) for name, group in groups.items()}
    total, even = sum(moved.values()), 1 / len(groups)
    return {name: floor * even + (1 - floor) * (move / total if total else even) for name, move in moved.items()}
