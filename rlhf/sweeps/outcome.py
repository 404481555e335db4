"""What a finished run measured: one number per metric, per prompt where the run says so, and the series for curves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.core.errors import DataError
from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.sweeps.spec import Metric

WHOLE = ""
"""Key of a value that does not belong to a prompt."""
_EVALUATION = re.compile(r"val-(?:core|aux)/(?P<task>[^/]+)/(?P<what>.+)/mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished run, read."""

    rows: list[dict[str, Any]]
    """Of metrics.jsonl."""
    evaluated: list[dict[str, Any]]
    """Of evaluations.jsonl, those of the last evaluation."""
    history: list[dict[str, Any]]
    """Of evaluations.jsonl, all of them."""
    tokens: int
    seconds: float

    def value(self, metric: Metric) -> dict[str, float]:
        """A metric by prompt, or under `WHOLE`; empty when the last stage never recorded it."""
        by_prompt = self._by_prompt(metric) if metric.window == 1 and metric.reduce == "mean" else {}
        if by_prompt:
            return by_prompt
        stage = self.rows[-1]["stage"] if self.rows else None
        series = [row[metric.key] for row in self.rows if row["stage"] == stage and metric.key in row]
        if not series:
            return {}
        return {WHOLE: _reduced(np.array(series, dtype=np.float64), metric)}

    def keys(self) -> set[str]:
        """Every metric that the run recorded."""
        return {key for row in self.rows for key in row} - {"step", "stage"}

    def series(self, key: str) -> dict[int, float]:
        """Values by step."""
        return {row["step"]: float(row[key]) for row in self.rows if key in row}

    def _by_prompt(self, metric: Metric) -> dict[str, float]:
        match = _EVALUATION.fullmatch(metric.key)
        if match is None:
            return {}
        rows = [row for row in self.evaluated if row["task"] == match["task"]]
        return {row["content"]: float(row[match["what"]]) for row in rows if row.get(match["what"]) is not None}


def read(folder: RunFolder) -> Outcome:
    """Read a finished run.

    Raises:
        DataError: it has no summary, so it is not finished.
    """
    if not folder.summary.exists():
        raise DataError(str(folder.path), "has not finished", fix="run the command that started it again")
    summary: Mapping[str, Any] = json.loads(folder.summary.read_text(encoding="utf-8"))
    evaluated = list(read_lines(folder.evaluations))
    last = evaluated[-1]["step"] if evaluated else None
    return Outcome(
        rows=list(read_lines(folder.metrics)),
        evaluated=[row for row in evaluated if row["step"] == last],
        history=evaluated,
        tokens=int(summary["tokens"]),
        seconds=float(summary["seconds"].get("total", math.nan)),
    )


def _reduced(series: np.ndarray, metric: Metric) -> float:
    newest = series[-metric.window :]
    if metric.reduce == "change":
        return float(newest.mean() - series[: metric.window].mean())
    return float({"mean": np.mean, "std": np.std, "max": np.max}[metric.reduce](newest))
