"""Which samples of a graded group a step goes on with: what filters leave of it, and of that what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rlhf.core.component import Component
from rlhf.core.types import Group, Verdict

CORRECT, ALL = "correct", "all"
SELECT = (CORRECT, ALL)


def filtered(group: Group, filters: Mapping[str, Component]) -> tuple[Group | None, str]:
    """The group behind all filters, or None and the reason why one dropped it."""
    for component in filters.values():
        kept = component.module.keep(group, component.config)
        if kept.group is None:
            return None, kept.reason
        group = kept.group
    return group, ""


def selected(group: Group, *, select: str, most: int = 0) -> Group:
    """The samples of a group that are wanted, equal texts once.

    Args:
        select: `correct` takes samples with that verdict, `all` everything that was graded.
        most: the first so many; 0 takes all.
    """
    seen: set[str] = set()
    kept: list[int] = []
    for g, (t, reward) in enumerate(zip(group.trajectories, group.rewards, strict=True)):
        wanted = reward.verdict == Verdict.CORRECT if select == CORRECT else reward.value is not None
        if not wanted or t.text in seen or (most and len(seen) >= most):
            continue
        seen.add(t.text)
        kept.append(g)
    return replace(
        group,
        trajectories=tuple(group.trajectories[g] for g in kept),
        rewards=tuple(group.rewards[g] for g in kept),
    )
