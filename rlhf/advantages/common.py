"""What advantages share: from graded groups to scalar returns or to rewards of single tokens, and on to token rows.

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

_EPS = 1e-8
"""Added to the variance, as in verl and TRL."""


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


def token_rewards(group: Group) -> list[list[float] | None]:
    """What each token of each trajectory earns [G][T]: what the reward places on it less its penalty; the rest of the
    reward is earned by the last token.

    Raises:
        ValueError: as in `returns`.
    """
    penalties_GT = group.penalties_GT or tuple((0.0,) * len(t.tokens) for t in group.trajectories)
    out: list[list[float] | None] = []
    for reward, total, penalties_T in zip(group.rewards, returns(group), penalties_GT, strict=True):
        if reward.value is None or total is None:
            out.append(None)
            continue
        rewards_T = [-penalty for penalty in penalties_T]
        if rewards_T:
            rewards_T[-1] += reward.value - math.fsum(reward.per_token)
        if reward.per_token:
            rewards_T = [r + placed for r, placed in zip(rewards_T, reward.per_token, strict=True)]
        out.append(rewards_T)
    return out


def to_come(rewards_T: Sequence[float], *, gamma: float = 1.0) -> Row:
    """What is earned from each token on, discounted by `gamma` per token."""
    following, found = 0.0, list[float]()
    for reward in reversed(rewards_T):
        following = reward + gamma * following
        found.append(following)
    return tuple(reversed(found))


def whitened(found: Sequence[Sequence[Row | None]]) -> list[list[Row | None]]:
    """Mean 0 and sample deviation 1 over all tokens; a single token has no deviation and keeps its size.

    Equal values give exactly 0.0, for the reason given at `centred`.
    """
    tokens = [value for rows in found for row in rows if row is not None for value in row]
    if not tokens:
        return [list(rows) for rows in found]
    mean = tokens[0] if min(tokens) == max(tokens) else statistics.fmean(tokens)
    variance = math.fsum((value - mean) ** 2 for value in tokens) / (len(tokens) - 1) if len(tokens) > 1 else 1.0
    scale = 1 / math.sqrt(variance + _EPS)
    return [[None if row is None else tuple((v - mean) * scale for v in row) for row in rows] for rows in found]
