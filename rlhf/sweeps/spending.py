"""What a run had spent by each of its evaluations, and what it measured there.

    steps      of training
    tokens     generated and trained on, as `evaluations.jsonl` says
    seconds    of all steps up to there (`timing_s/step`), without evaluations and checkpoints

Evaluations are not timed because runs that look more often would pay for it; AlgoPerf leaves them out too (Dahl et al.
2023, arXiv 2306.07179). A run that was killed and continued has every step in its log once: what was lost and done
again counts once, and the time between two processes does not count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.run_folder import RunFolder, read_lines

COSTS = ("steps", "tokens", "seconds")
UNTIMED = ("timing_s/eval", "timing_s/checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A metric's values and what had been spent at each, ascending."""

    costs: Sequence[float]
    values: Sequence[float]


def curves(folder: RunFolder, metric: str, *, cost: str, after: str = "") -> dict[str, Curve]:
    """A run's curves by held-out task; by an empty name where the metric speaks of none.

    Args:
        folder: of the run.
        metric: key of `metrics.jsonl`, with `*` for the task.
        cost: one of `COSTS`.
        after: stage at whose end counting starts, and whose end is the first value; empty: nothing is left out.

    Raises:
        ConfigError: `*` stands there twice.
        DataError: the run has no such stage, did not record what it spent, or a value is not finite.
    """
    if metric.count("*") > 1:
        raise ConfigError("--metric", f"'{metric}' has more than one *", fix="write * once, for the held-out task")
    pattern = re.compile("(.+)".join(map(re.escape, metric.split("*"))))
    rows = list(read_lines(folder.metrics))
    spent = _spent(folder, rows, cost)
    first = _end(folder, rows, after)
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        matches = [match for key in row if row["step"] >= first and (match := pattern.fullmatch(key))]
        for match in matches:
            value = float(row[match.string])
            if not math.isfinite(value):
                raise DataError(
                    str(folder.metrics), f"{match.string} is {value} at step {row['step']}", fix="leave it out"
                )
            paid = _at(folder, spent, row["step"], cost) - (_at(folder, spent, first, cost) if after else 0)
            found.setdefault(next(iter(match.groups()), ""), []).append((paid, value))
    return {
        task: Curve(costs=[paid for paid, _ in points], values=[value for _, value in points])
        for task, points in found.items()
    }


def _spent(folder: RunFolder, rows: Sequence[Mapping[str, Any]], cost: str) -> dict[int, float]:
    """By step; tokens at evaluations alone."""
    if cost == "steps":
        return {row["step"]: float(row["step"]) for row in rows}
    if cost == "tokens":
        return {row["step"]: float(row["tokens"]) for row in read_lines(folder.evaluations) if "tokens" in row}
    total, out = 0.0, dict[int, float]()
    for row in rows:
        total += row["timing_s/step"] - sum(row.get(key, 0.0) for key in UNTIMED)
        out[row["step"]] = total
    return out


def _at(folder: RunFolder, spent: Mapping[int, float], step: int, cost: str) -> float:
    if step not in spent:
        problem = f"does not say how many {cost} were spent by step {step}"
        fix = "use --cost steps; tokens are recorded with held-out answers, and not by older versions"
        raise DataError(str(folder.path), problem, fix=fix)
    return spent[step]


def _end(folder: RunFolder, rows: Sequence[Mapping[str, Any]], stage: str) -> int:
    """The last step of a stage; 0 for none."""
    steps = [row["step"] for row in rows if row["stage"] == stage]
    if stage and not steps:
        names = ", ".join(dict.fromkeys(row["stage"] for row in rows))
        raise DataError(str(folder.path), f"has no stage '{stage}'", fix=f"give --after one of {names}, or none")
    return steps[-1] if stage else 0
