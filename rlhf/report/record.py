"""What a run folder says, read into memory once for everything that draws it.

`read_run` is called by the HTML page and by the curves. It works at any moment of a run's life: files that are missing
or damaged become sentences in `Run.notes`, never an exception and never silence. `metrics.jsonl` is read row by row
into compact arrays. Where a resumed run wrote a step again, the later row counts and what followed the earlier one is
dropped, so that curves read as if the run had not stopped.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.core import config
from rlhf.core.errors import ConfigError, RunFolderError
from rlhf.report.samples import Selection, rows, select
from rlhf.report.stats import Change, Interval

EVALUATION = re.compile(r"^val-core/(?P<task>.+)/(?P<what>sampled_accuracy|greedy_accuracy|pass@\d+)/mean$")


@dataclass(slots=True)
class Series:
    """One metric: values at strictly rising steps."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, step: int, value: float) -> None:
        if self.steps and step <= self.steps[-1]:
            cut = bisect_left(self.steps, step)
            del self.steps[cut:], self.values[cut:]
        self.steps.append(step)
        self.values.append(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stage and the global steps it ran, both ends included."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One evaluation; the bounds equal the mean where no interval was written."""

    step: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All evaluations of one kind on one task. Example: `Evaluation(task="sums", what="pass@4", points=…)`."""

    task: str
    what: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`summary.json`, written when a run ends. Base and final are of the primary task."""

    base: Interval | None
    final: Interval | None
    others: Mapping[str, Change]
    """The same of every further task."""
    seconds: Mapping[str, float]
    steps: int
    tokens: int
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that is drawn. Configs and environment are flat: `{"rl.lr": 1e-6}`; None means no such file."""

    name: str
    series: Mapping[str, Series]
    stages: tuple[Span, ...]
    not_finite: Mapping[str, int]
    """Metrics that were nan or infinite, with the first such step; those values are in no series."""
    selection: Selection
    summary: Summary | None
    config: Mapping[str, Any] | None
    base_config: Mapping[str, Any] | None
    environment: Mapping[str, Any] | None
    notes: tuple[str, ...]

    @property
    def tasks(self) -> list[str]:
        """Names of the held-out tasks, the primary first."""
        return self.names("val-aux/", "/ungradable")

    @property
    def last_step(self) -> int | None:
        return self.stages[-1].last if self.stages else None

    def values(self, key: str) -> array[float]:
        """All values of a metric, oldest first; empty when it was never written."""
        return self.series[key].values if key in self.series else array("d")

    def steps(self, prefix: str) -> list[int]:
        """Every step at which a metric of this prefix was written, ascending."""
        return sorted({step for key, series in self.series.items() if key.startswith(prefix) for step in series.steps})

    def total(self, key: str, steps: Sequence[int]) -> float:
        """Sum from the first to the last of these ascending steps; a metric need not be written at every step."""
        series = self.series.get(key, Series())
        if not steps:
            return 0.0
        return math.fsum(series.values[bisect_left(series.steps, steps[0]) : bisect_right(series.steps, steps[-1])])

    def last_stage_values(self, key: str) -> array[float]:
        """The values of the last stage that wrote the metric; stages are not comparable with each other."""
        series = self.series.get(key, Series())
        starts = [bisect_left(series.steps, span.first) for span in reversed(self.stages)]
        start = next((start for start in starts if start < len(series.steps)), 0)
        return series.values[start:]

    def names(self, prefix: str, suffix: str = "") -> list[str]:
        """What stands between prefix and suffix in the metrics' names, in the order of first appearance."""
        return [
            key[len(prefix) : len(key) - len(suffix)]
            for key in self.series
            if key.startswith(prefix) and key.endswith(suffix) and len(key) > len(prefix) + len(suffix)
        ]

    def evaluations(self) -> list[Evaluation]:
        out: list[Evaluation] = []
        for key, means in self.series.items():
            match = EVALUATION.match(key)
            if match is None:
                continue
            low, high = (self._at(f"{key[: -len('mean')]}{bound}") for bound in ("low", "high"))
            points = tuple(
                Point(step=step, mean=mean, low=low.get(step, mean), high=high.get(step, mean))
                for step, mean in zip(means.steps, means.values, strict=True)
            )
            out.append(Evaluation(task=match["task"], what=match["what"], points=points))
        return out

    def _at(self, key: str) -> dict[int, float]:
        series = self.series.get(key, Series())
        return dict(zip(series.steps, series.values, strict=True))


def other_tasks(stages: Sequence[Mapping[str, Any]]) -> dict[str, Change]:
    """What the last stage did to every held-out task but the primary.

    Args:
        stages: of `summary.json`.
    """
    before, after = ([{}, {}] + [dict(entry.get("others", {})) for entry in stages])[-2:]
    return {task: Change(before=_interval(before.get(task)), after=_interval(after[task])) for task in after}


def read_run(folder: Path) -> Run:
    """Read whatever the folder holds.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not folder.is_dir():
        raise RunFolderError(str(folder), "there is no such run folder", fix="give the path of a folder below runs/")
    notes: list[str] = []
    metrics = _read_metrics(folder / "metrics.jsonl", notes)
    summary = _read_summary(folder / "summary.json", notes)
    return Run(
        name=folder.resolve().name,
        series=metrics.series,
        stages=tuple(Span(name=name, first=first, last=last) for name, first, last in metrics.stages),
        not_finite=metrics.not_finite,
        selection=_read_samples(folder / "samples.jsonl", notes),
        summary=summary,
        config=_read_config(folder / "config.yaml", notes),
        base_config=_read_config(folder / "base_config.yaml", notes),
        environment=_read_environment(folder / "environment.json", notes),
        notes=tuple(notes),
    )


@dataclass(slots=True)
class _Metrics:
    series: dict[str, Series] = field(default_factory=dict[str, Series])
    stages: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    not_finite: dict[str, int] = field(default_factory=dict[str, int])

    def add(self, row: Mapping[str, Any]) -> None:
        step, stage = int(row["step"]), str(row["stage"])
        while self.stages and self.stages[-1][1] > step:
            self.stages.pop()
        if self.stages and self.stages[-1][0] == stage:
            self.stages[-1] = (stage, self.stages[-1][1], step)
        else:
            self._end_before(step)
            self.stages.append((stage, step, step))
        for key, value in row.items():
            if key == "step" or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if math.isfinite(value):
                self.series.setdefault(key, Series()).add(step, value)
            else:
                self.not_finite.setdefault(key, step)

    def _end_before(self, step: int) -> None:
        if self.stages:
            name, first, last = self.stages[-1]
            self.stages[-1] = (name, first, max(first, min(last, step - 1)))


def _read_metrics(path: Path, notes: list[str]) -> _Metrics:
    metrics, unreadable = _Metrics(), 0
    if not path.is_file():
        notes.append("There is no metrics.jsonl yet: no step has ended.")
        return metrics
    for row in rows(path):
        try:
            metrics.add(row or {})
        except (KeyError, TypeError, ValueError):
            unreadable += 1
    if unreadable:
        notes.append(f"metrics.jsonl: {unreadable} line(s) could not be read and are missing from the curves.")
    if not metrics.stages:
        notes.append("metrics.jsonl holds no step yet.")
    return metrics


def _read_samples(path: Path, notes: list[str]) -> Selection:
    if not path.is_file():
        notes.append("There is no samples.jsonl: no trajectory has been scored.")
        return select([])
    selection = select(rows(path))
    if selection.unreadable:
        notes.append(f"samples.jsonl: {selection.unreadable} line(s) could not be read and are left out.")
    return selection


def _read_summary(path: Path, notes: list[str]) -> Summary | None:
    if not path.is_file():
        notes.append("There is no summary.json: the run is still going, or it ended before its last step.")
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Summary(
            base=_interval(raw["base_accuracy"]),
            final=_interval(raw["final_accuracy"]),
            others=other_tasks(raw.get("stages", [])),
            seconds={str(phase): float(seconds) for phase, seconds in raw["seconds"].items()},
            steps=int(raw["steps"]),
            tokens=int(raw["tokens"]),
            peak_memory_bytes=int(raw["peak_memory_bytes"]),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        notes.append(f"summary.json could not be read ({type(error).__name__}: {error}).")
        return None


def _interval(raw: Mapping[str, float] | None) -> Interval | None:
    if raw is None or not raw["n"]:
        return None
    return Interval(mean=float(raw["mean"]), low=float(raw["low"]), high=float(raw["high"]), n=int(raw["n"]))


def _read_config(path: Path, notes: list[str]) -> Mapping[str, Any] | None:
    if not path.is_file():
        notes.append(f"There is no {path.name}.")
        return None
    try:
        return config.flatten(config.load(path).tree)
    except ConfigError as error:
        notes.append(f"{path.name} could not be read: {error.problem}.")
        return None


def _read_environment(path: Path, notes: list[str]) -> Mapping[str, Any] | None:
    if not path.is_file():
        notes.append(f"There is no {path.name}.")
        return None
    try:
        return config.flatten(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        notes.append(f"{path.name} could not be read ({type(error).__name__}: {error}).")
        return None
