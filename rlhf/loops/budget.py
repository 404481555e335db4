"""Ends a run early whose last stage will not come to what is wanted, as a forecast of its learning curve says.

    budget: {below: 0.8}                    # stop when the last evaluation will be below 0.8
    budget: {against: runs/baseline}        # ... below what that run ended with, once it has

Asked after every evaluation of the last stage, once `after` of its steps are done. A run is given up when the upper end
of the forecast (`rlhf.report.forecast`) is below, and its last three trends agree to `settled`. It then has a last
checkpoint, a summary that says why, and a report; the same command goes on with nothing. The decision follows from
`metrics.jsonl` and lies in the checkpoint, so that a run that was killed decides the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.core.errors import ConfigError
from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.report.forecast import forecast


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """When a run is given up; by default never."""

    below: float | None = None
    """Stop when the forecast of the metric at the end of the last stage is below this; null: never."""
    against: str = ""
    """Folder of a run whose end takes the place of `below` as soon as it is finished."""
    metric: str = ""
    """Key of `metrics.jsonl`, larger is better, between 0 and 1; empty: sampled accuracy of the first held-out task."""
    margin: float = 0.0
    """How far below."""
    after: float = 0.4
    """Share of the last stage before which no run is stopped."""
    settled: float = 0.03
    """Largest change of the forecast over the last three evaluations for it to be believed."""

    def __post_init__(self) -> None:
        if self.below is not None and self.against:
            fix = "set one of them"
            raise ConfigError("below", "and `against` both say what is too little", fix=fix)
        if not 0 <= self.after < 1:
            raise ConfigError("after", f"{self.after} is not a share below 1", fix="use 0.4")
        if self.margin < 0:
            raise ConfigError("margin", f"{self.margin} is negative", fix="use 0 or more")
        if self.settled <= 0:
            raise ConfigError("settled", f"{self.settled} is never reached", fix="use 0.03")

    @property
    def on(self) -> bool:
        return self.below is not None or bool(self.against)


@dataclass(frozen=True, slots=True, kw_only=True)
class Giver:
    """Says when to give up."""

    cfg: BudgetConfig
    folder: RunFolder
    stage: str
    """The last one."""
    task: str
    """Whose accuracy counts where no metric is named."""

    def why(self, *, last: int, done: float) -> str:
        """Why the run is to be given up now; empty where it is not.

        Args:
            last: global step that the stage would end with.
            done: share of the stage that is done.
        """
        key = self.cfg.metric or f"val-core/{self.task}/sampled_accuracy/mean"
        wanted = self.cfg.below if not self.cfg.against else ended_with(Path(self.cfg.against), key)
        if wanted is None or done < self.cfg.after:
            return ""
        points = series(read_lines(self.folder.metrics), key, stage=self.stage)
        found = forecast(list(points), list(points.values()), at=last)
        least = wanted - self.cfg.margin
        if found is None or found.high >= least or found.moved > self.cfg.settled:
            return ""
        shown = f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
        return f"{key} would be {shown} at step {last}, below {least:.3f}"


def series(rows: Iterable[Mapping[str, Any]], key: str, *, stage: str) -> dict[int, float]:
    """Values of a metric in a stage by step."""
    return {row["step"]: float(row[key]) for row in rows if row["stage"] == stage and key in row}


def ended_with(run: Path, key: str) -> float | None:
    """The last value of a metric of a run; None where the run has not finished, was given up, or never wrote it."""
    folder = RunFolder(run)
    if not folder.summary.exists() or given_up(folder):
        return None
    values = [float(row[key]) for row in read_lines(folder.metrics) if key in row]
    return values[-1] if values else None


def given_up(folder: RunFolder) -> str:
    """Why a finished run was given up; empty where it was not."""
    return str(json.loads(folder.summary.read_text(encoding="utf-8")).get("stopped", ""))
