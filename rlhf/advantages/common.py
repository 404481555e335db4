"""What group-relative advantages share: from graded groups to scalar returns, and from scalars to token rows.

A return is None where the reward could not be graded. Such a trajectory takes part in no mean or deviation and gets no
row: it is left out of the update, which is not the same as an advantage of zero.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rlhf.core.types import Group

Row = tuple[float, ...]
"""One advantage per response token."""


def returns(group: Group) -> list[float | None]:
    """Reward minus the sum of per-token penalties, per trajectory [G]: verl's sum of token-level rewards.

    Raises:
        ValueError: a reward or penalty is nan or infinite, or the group has not been scored.
    """
    if len(group.rewards) != len(group.trajectories):
        raise ValueError(f"group '{group.prompt.id}': {len(group.rewards)} rewards, {len(group.trajectories)} samples")
    penalties_GT = group.penalties_GT or ((),) * len(group.trajectories)
    out: list[float | None] = []
    for trajectory, reward, penalties_T in zip(group.trajectories, group.rewards, penalties_GT, strict=True):
        value = None if reward.value is None else reward.value - math.fsum(penalties_T)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"the return of trajectory '{trajectory.id}' is {value}; ungraded rewards are None")
        out.append(value)
    return out


def graded(values: Sequence[float | None]) -> list[float]:
    """The values that are not None."""
    return [value for value in values if value is not None]


def centred(values: Sequence[float | None]) -> list[float | None]:
    """Each value minus the mean of all that are graded; None stays None.

    Equal values, hence also a single one, give exactly 0.0 and not the rounding error of a mean: learners skip
    sequences whose advantages are zero.
    """
    known = graded(values)
    if not known:
        return list(values)
    mean = known[0] if min(known) == max(known) else statistics.fmean(known)
    return [None if value is None else value - mean for value in values]


def rows(group: Group, scalars: Sequence[float | None]) -> list[Row | None]:
    """Every token of a trajectory gets its trajectory's scalar."""
    return [
        None if scalar is None else (scalar,) * len(trajectory.tokens)
        for trajectory, scalar in zip(group.trajectories, scalars, strict=True)
    ]
