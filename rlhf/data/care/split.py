"""Which tasks, or which values of a column, are held out as a whole: splits at task and category level.

    train       training prompts of the task without a value that is held out
    held out    held-out prompts of the task with one

A prompt has one value, or several where its column holds a list (`keywords`, `categories`); one that is held out is
enough. Where only a share is given, values are ranked by a hash of seed, column and value: a larger share holds out
what a smaller one does, and more. What a task holds out by itself stays held out: a question never moves to the other
side, so that what is measured is new as a whole, and question by question.

Source: OPT-IML (Iyer et al. 2022, arXiv 2212.12017), section 3, measures on instances of tasks that are trained on,
on held-out tasks of known categories, and on held-out categories; `rlhf.tasks.files` splits its files in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Prompt

TASK = "task"
"""Not a column: what a prompt says its task is, which in a mix is the label of its part."""
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """What is held out as a whole; by default nothing is, and the task says which prompts are held out."""

    by: str = ""
    """`task`, or a column of the prompts, such as `kind`, `operation`, `level`; empty: prompts one by one."""
    held_out: list[str] = field(default_factory=list[str])
    """Values that are held out."""
    share: float = 0.0
    """Or the share of the values that is, chosen by the seed, at least one."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError("share", f"{self.share} is not a share below 1", fix="use 0.2, or name held_out values")
        if self.by and bool(self.held_out) == bool(self.share):
            problem = "says nothing of what is held out" if not self.share else "comes with a share and with values"
            raise ConfigError("by", problem, fix="set either split.held_out or split.share")
        if not self.by and (self.held_out or self.share):
            raise ConfigError("by", "is empty", fix="set `task`, or a column of the prompts")

    @property
    def on(self) -> bool:
        return bool(self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Prompts of both sides, and the values that tell them apart."""

    train: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    values: tuple[str, ...]
    """Those that are held out, sorted."""
    left_out: Mapping[str, tuple[str, ...]]
    """Training prompts that are on neither side, by id, with their held-out values."""


def split(train: Sequence[Prompt], held_out: Sequence[Prompt], cfg: SplitConfig, *, seed: int) -> Sides:
    """Both sides by their values.

    Args:
        train: that the task trains on.
        held_out: that the task holds out.
        seed: of the run.

    Raises:
        DataError: a prompt has no value, a value is held out that no prompt has, or one side has no prompts.
    """
    learnt, unseen = ([values(prompt, cfg.by) for prompt in side] for side in (train, held_out))
    known = {value for found in (*learnt, *unseen) for value in found}
    for value in cfg.held_out:
        if value not in known:
            problem = f"no prompt has '{value}' in '{cfg.by}'; there are {_listed(known)}"
            raise DataError("care.split.held_out", problem, fix=did_you_mean(value, known))
    chosen = set(cfg.held_out) or _chosen({value for found in unseen for value in found}, cfg, seed)
    left_out = {p.id: found for p, all_of in zip(train, learnt, strict=True) if (found := _among(all_of, chosen))}
    sides = Sides(
        train=tuple(prompt for prompt in train if prompt.id not in left_out),
        held_out=tuple(p for p, found in zip(held_out, unseen, strict=True) if _among(found, chosen)),
        values=tuple(sorted(chosen)),
        left_out=left_out,
    )
    for name, side, found in (("training", sides.train, learnt), ("held-out", sides.held_out, unseen)):
        if not side:
            there = _listed({value for one in found for value in one})
            problem = f"no {name} prompt is left with {_listed(chosen)} held out; {name} prompts have {there}"
            raise DataError("care.split", problem, fix="hold out other values, or another share of them")
    return sides


def values(prompt: Prompt, by: str) -> tuple[str, ...]:
    """What a prompt is told apart by.

    Raises:
        DataError: it has no such column, or something in it that has no name.
    """
    found: object = prompt.task if by == TASK else prompt.columns.get(by)
    where = f"prompt {prompt.id}"
    if found is None:
        have = ", ".join([TASK, *prompt.columns])
        raise DataError(where, f"has nothing in the column '{by}'", fix=f"set care.split.by to one of {have}")
    several = tuple(cast("Sequence[object]", found)) if isinstance(found, list | tuple) else (found,)
    if not all(isinstance(one, str | int | float) for one in several):
        fix = "name another column in care.split.by"
        raise DataError(where, f"column '{by}' holds {found!r:.80}, no values", fix=fix)
    return tuple(map(str, several))


def _chosen(values: set[str], cfg: SplitConfig, seed: int) -> set[str]:
    """A share of the values of held-out prompts, at least one."""
    ranked = sorted(values, key=lambda value: derive_seed(seed, "split", cfg.by, value))
    return set(ranked[: max(1, round(cfg.share * len(ranked)))])


def _among(found: Sequence[str], chosen: set[str]) -> tuple[str, ...]:
    return tuple(value for value in found if value in chosen)


def _listed(found: set[str]) -> str:
    names = sorted(found)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"
