"""Where a loop's numbers go, and how long its phases take.

The loops call one line each: `with recorder.phase("gen")`, `recorder.step(...)`. One JSON object per step goes to
`metrics.jsonl`, the same values to every sink; one record per trajectory to `samples.jsonl`, one per held-out prompt of
an evaluation to `evaluations.jsonl`. All keys under `timing_s/` and `perf/` depend on the machine; every other key is a
function of config and seed, and with `max_staleness` above 0 of how rollout and training happened to interleave.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rlhf.core.metrics import Metric
from rlhf.core.protocols import Sink
from rlhf.core.run_folder import RunFolder, append_lines
from rlhf.core.types import Json


class Recorder:
    """Collects the numbers of one step and writes them out together.

    Args:
        folder: of the run.
        sinks: TensorBoard, the terminal; they get the same values as `metrics.jsonl`.
        seconds: per phase, from before a restart.
        on_samples: is shown the sample records of every step.
    """

    def __init__(
        self,
        folder: RunFolder,
        sinks: Sequence[Sink],
        seconds: Mapping[str, float],
        *,
        on_samples: Callable[[int, Sequence[Mapping[str, Json]]], None] | None = None,
    ) -> None:
        self._folder, self._sinks, self._on_samples = folder, sinks, on_samples
        self.seconds: dict[str, float] = dict(seconds)
        """Per phase over the whole run."""
        self._spent: dict[str, float] = {}
        self._tokens = 0
        self._pending: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside as `timing_s/<name>`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spend({name: time.perf_counter() - start})

    def spend(self, seconds: Mapping[str, float]) -> None:
        """Count times that were measured elsewhere, by phase, as `timing_s/<name>`."""
        for name, spent in seconds.items():
            self._spent[name] = self._spent.get(name, 0.0) + spent
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def add(self, metrics: Mapping[str, Metric] | Mapping[str, float] | Mapping[str, Metric | float]) -> None:
        """Add metrics to the row of the current step."""
        for key, metric in metrics.items():
            if isinstance(metric, (int, float)):
                self._pending[key] = float(metric)
            elif not math.isnan(metric.value):
                self._pending[key] = metric.value

    def count_tokens(self, tokens: int) -> None:
        """Tokens generated or trained on in this step, for the throughput."""
        self._tokens += tokens

    def samples(self, step: int, rows: Sequence[Mapping[str, Json]]) -> None:
        """Append the records of a step's scored trajectories to `samples.jsonl`."""
        append_lines(self._folder.samples, rows)
        if self._on_samples is not None and rows:
            self._on_samples(step, rows)

    def evaluation(self, rows: Sequence[Mapping[str, Json]]) -> None:
        """Append what each prompt of an evaluation scored to `evaluations.jsonl`."""
        append_lines(self._folder.evaluations, rows)

    def step(self, step: int, stage: str) -> dict[str, float]:
        """Write the row of a step and start the next one. Returns the row's values."""
        total = time.perf_counter() - self._started
        row = dict(self._pending)
        row |= {f"timing_s/{name}": spent for name, spent in self._spent.items()} | {"timing_s/step": total}
        if self._tokens:
            row["perf/throughput"] = self._tokens / total
        append_lines(self._folder.metrics, [{"step": step, "stage": stage, **_rounded(row)}])
        for sink in self._sinks:
            sink.write(step, row)
        self.seconds["total"] = self.seconds.get("total", 0.0) + total
        self._pending, self._spent, self._tokens, self._started = {}, {}, 0, time.perf_counter()
        return row

    def close(self) -> None:
        """Flush and close every sink."""
        for sink in self._sinks:
            sink.close()


def _rounded(row: Mapping[str, float]) -> dict[str, float]:
    return {key: float(f"{value:.9g}") for key, value in row.items()}
