"""`rlhf score`: grade a file of completions by the rewards of a config, and say what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rewards import rubric
from rewards.pool import WorkerPool
from rlhf.core.run_folder import write_whole
from rlhf.core.types import Group, RewardOut, Verdict
from rlhf.lab import completions
from rlhf.lab.completions import Columns, Completions
from rlhf.loops import settings
from rlhf.models import load
from rlhf.report.stats import Interval, bootstrap_interval

REASONS = 8
"""Reasons that are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A graded file."""

    read: Completions
    groups: list[Group]
    seconds: float

    @property
    def rewards(self) -> list[RewardOut]:
        """In the order of the groups."""
        return [reward for group in self.groups for reward in group.rewards]


def score(
    file: Path, config: Path, overrides: Sequence[str] = (), *, columns: Columns | None = None, tokenizer: str = ""
) -> Scored:
    """Grade every completion of a file.

    Args:
        file: rows with prompt, gold and completion; see `rlhf.lab.completions`.
        config: a recipe; its `rewards` and `rubric` grade.
        overrides: `key=value` for the recipe.
        columns: where a row holds what.
        tokenizer: folder or hub id, for rewards that count tokens.

    Raises:
        UserError: the config, the file or a row cannot be used.
    """
    chosen = settings.read(config, overrides).settings
    words = load.load_tokenizer(tokenizer) if tokenizer else None
    read = completions.read(file, columns or Columns(), tokenizer=words)
    with WorkerPool() as pool:
        begin = time.perf_counter()
        groups = rubric.score_groups(read.groups, chosen.rewards, chosen.rubric, pool)
        return Scored(read=read, groups=groups, seconds=time.perf_counter() - begin)


def show(scored: Scored, *, title: str) -> None:
    """Print what was found."""
    console, outs = Console(), scored.rewards
    graded = [[r.value for r in g.rewards if r.value is not None] for g in scored.groups]
    right = [[r.verdict is Verdict.CORRECT for r in g.rewards if r.value is not None] for g in scored.groups]
    console.print(title, style="bold", markup=False, highlight=False)
    table = Table("measure", "mean", "95 % interval")
    for name, rows, share in (("reward", graded, False), ("correct", right, True)):
        if (found := interval(rows, share=share)) is not None:
            table.add_row(name, f"{found.mean:.3f}", f"{found.low:.3f} – {found.high:.3f}")
    for name in dict.fromkeys(name for out in outs for name in out.breakdown):
        values = [v for out in outs if (v := out.breakdown.get(name)) is not None]
        if values:
            table.add_row(f"  {name}", f"{sum(values) / len(values):.3f}", "")
    console.print(table)
    count = Table("verdict", "answers", "share", "reasons")
    for verdict in Verdict:
        mine = [out for out in outs if out.verdict is verdict]
        if mine:
            reasons = [f"{why or '–'} {n}" for why, n in _most([out.reason for out in mine])]
            count.add_row(verdict.value, f"{len(mine):,}", f"{len(mine) / len(outs):.1%}", ", ".join(reasons))
    console.print(count)
    rate = len(outs) / max(scored.seconds, 1e-9)
    size = f"{len(outs):,} completions of {len(scored.groups):,} prompts"
    console.print(f"{size} in {scored.seconds:.2f} s, {rate:,.0f} per second", highlight=False)


def interval(rows: Sequence[Sequence[float | bool]], *, share: bool) -> Interval | None:
    """Mean over prompts of the means of their answers, which are known to lie from 0 to 1 if it is a share; None where
    nothing was graded."""
    means = [sum(row) / len(row) for row in rows if row]
    return bootstrap_interval(means, seed=0, share=share) if means else None


def write(scored: Scored, path: Path) -> None:
    """One line per completion: the columns of its row, then what it got.

    Raises:
        RunFolderError: it cannot be written there.
    """
    write_whole(path, "".join(f"{line}\n" for line in _lines(scored)))


def _lines(scored: Scored) -> Iterator[str]:
    for item in scored.read.items:
        group = scored.groups[item.group]
        yield json.dumps(dict(item.row) | result(group.rewards[item.place], item.place))


def result(out: RewardOut, index: int) -> dict[str, Any]:
    """What a completion got, under the names of `samples.jsonl`."""
    return {
        "index": index,
        "value": out.value,
        "verdict": out.verdict.value,
        "reason": out.reason,
        "extracted": out.extracted,
        "breakdown": dict(out.breakdown),
    }


def _most(reasons: Sequence[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ranked[:REASONS]
