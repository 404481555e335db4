"""`rlhf evaluate TARGET --ladder FILE`: how much help does the policy need with each question?

    index(x) = the first level whose answer to x is right, from 1;    levels + penalty where none is
    score = mean of index over the held-out prompts; the lower, the stronger the policy or the easier the task

A level is an instruction with `{question}` in it, from the least help to the most; a question is asked on the next
level only where it was answered wrongly. Source: Hierarchical Prompting Taxonomy, Budagam et al. 2024 (arXiv
2406.12644): role, zero-shot chain of thought, three shots, least-to-most, generated knowledge, and penalties per data
set that people chose. Here the levels are those of the file, each one request; of the last two only what fits into one
prompt. An answer that cannot be graded counts as wrong, and is counted.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.run_folder import write_whole
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Prompt
from rlhf.loops import prompt_search
from rlhf.loops.prompt_search import QUESTION, Asker
from rlhf.report.stats import Interval, bootstrap_interval


@dataclass(frozen=True, kw_only=True)
class Levels:
    """What the file says."""

    levels: list[str] = field(default_factory=list[str])
    """Instructions with `{question}`, from the least help to the most."""
    penalty: float = 1.0
    """What a question costs, beyond the last level, that none of them solves."""

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("levels", "there is nothing to climb", fix="list one or more")
        for text in self.levels:
            if QUESTION not in text:
                raise ConfigError("levels", f"{text!r} has no place for the question", fix=f"write {QUESTION}")
        if not (math.isfinite(self.penalty) and self.penalty >= 0):
            raise ConfigError("penalty", f"{self.penalty} is not 0 or more", fix="use 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Climbed:
    """How far each question went."""

    index: list[float]
    """Per prompt."""
    asked: list[int]
    """Questions per level."""
    solved: list[int]
    """Of these."""
    ungradable: int
    score: Interval


async def climb(cfg: Levels, asker: Asker, prompts: Sequence[Prompt]) -> Climbed:
    """Ask every question on every level that it needs."""
    index = [len(cfg.levels) + cfg.penalty] * len(prompts)
    left, asked, solved, ungradable = list(range(len(prompts))), list[int](), list[int](), 0
    for level, instruction in enumerate(cfg.levels, start=1):
        answers = await asker.right([prompts[i] for i in left], instruction) if left else []
        asked.append(len(left))
        solved.append(sum(answer is True for answer in answers))
        ungradable += sum(answer is None for answer in answers)
        for place, answer in zip(left, answers, strict=True):
            if answer:
                index[place] = float(level)
        left = [place for place, answer in zip(left, answers, strict=True) if not answer]
    score = bootstrap_interval(index, seed=derive_seed(asker.seed, "bootstrap", "ladder"))
    return Climbed(index=index, asked=asked, solved=solved, ungradable=ungradable, score=score)


def evaluate(target: Path, overrides: Sequence[str], file: Path, *, out: Path | None) -> Climbed:
    """Climb with a config's model, or a run's newest weights, and print how far that goes.

    Args:
        file: YAML with the keys of `Levels`.
        out: where to write it as JSON.
    """
    cfg = config.build(Levels, config.load(file).tree)
    with prompt_search.asking(target, overrides) as asking:
        found = asyncio.run(asking.run(lambda asker: climb(cfg, asker, asking.held_out)))
    table = Table("level", "asked", "solved", title="ladder", title_justify="left")
    for text, asked, solved in zip(cfg.levels, found.asked, found.solved, strict=True):
        table.add_row(repr(text), str(asked), str(solved))
    console, score = Console(markup=False, highlight=False), found.score
    console.print(table)
    console.print(f"score {score.mean:.3f} [{score.low:.3f}, {score.high:.3f}], ungradable {found.ungradable}")
    if out is not None:
        bounds = {"mean": score.mean, "low": score.low, "high": score.high}
        rows = {"asked": found.asked, "solved": found.solved, "index": found.index, "ungradable": found.ungradable}
        write_whole(out, json.dumps({**{f"score/{k}": v for k, v in bounds.items()}, **rows}, indent=1))
    return found
