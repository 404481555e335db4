"""A metric sink for people: a live display on a terminal, one line of fixed columns per step in a log.

`make_console` picks by whether the stream is a terminal. Use the result as a context manager: leaving it, by an error
or Ctrl-C too, gives the terminal back, and never swallows an exception. Everything drawn is computed in `write`, by the
caller's thread; rich's refresh thread only repaints it, so a fault of ours is raised and not lost there.

Steps are global and count what has finished: 0 is an evaluation before training.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

from rich import box
from rich.console import Console as Terminal
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from rlhf.report.stats import Change
from rlhf.report.units import duration

HEADER_EVERY = 40
"""Lines of a log between two repetitions of the column names."""
HISTORY = 40
RECENT = 20
"""Steps whose mean duration foretells the remaining time."""
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A value that is shown. `scale` turns shares into per cent."""

    title: str
    key: str
    format: str
    width: int
    scale: float = 1.0
    also: str = ""
    """Shown where `key` has no value."""

    def text(self, values: Mapping[str, float]) -> str | None:
        """What stands in the column; None where there is no value."""
        key = self.key if self.key in values else self.also
        return format(values[key] * self.scale, self.format) if key in values else None


COLUMNS = (
    Column(title="reward", key="critic/score/mean", format=".3f", width=7),
    Column(title="loss", key="train/ce_loss", also="train/preference_loss", format=".4f", width=7),
    Column(title="length", key="response_length/mean", format=".1f", width=7),
    Column(title="cut%", key="response_length/clip_ratio", format=".1f", width=5, scale=100.0),
    Column(title="entropy", key="actor/entropy", format=".3f", width=7),
    Column(title="kl gap", key="rollout_corr/k3_kl", format=".1e", width=8),
    Column(title="grad", key="actor/grad_norm", format=".3g", width=7),
    Column(title="tok/s", key="perf/throughput", format=",.0f", width=8),
    Column(title="sec", key="timing_s/step", format=".2f", width=7),
)


class Console(Protocol):
    """What the loops see: a `rlhf.core.protocols.Sink` that also knows stages and sentences."""

    def start_stage(self, name: str, *, steps: int, done: int = 0) -> None:
        """A stage begins, or goes on after a resume with `done` of its `steps` behind it."""
        ...

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def message(self, text: str) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Console: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_console(total_steps: int, *, run: str, done: int = 0, stream: TextIO | None = None) -> Console:
    """A live display where `stream` (standard output by default) is a terminal that can move its cursor, else lines.

    Args:
        total_steps: global steps of all stages together.
        run: name of the run, for the title.
        done: global steps that an earlier process finished, for a resumed run.
    """
    out: TextIO = sys.stdout if stream is None else stream
    if out.isatty():
        terminal = Terminal(file=out)
        if terminal.is_terminal and not terminal.is_dumb_terminal:
            return LiveConsole(total_steps, run=run, done=done, terminal=terminal)
    return PlainConsole(total_steps, run=run, done=done, stream=out)


def print_result(changes: Mapping[str, Change], *, report: Path | None, stream: TextIO | None = None) -> None:
    """The last words of a run: accuracies with their intervals, of each task, and where to read on."""
    lines: list[str] = []
    for task, change in changes.items():
        of_task = f" of {task}" if len(changes) > 1 else ""
        lines += ["", f"held-out accuracy{of_task} (95% interval over prompts)", *_change_lines(change)]
    if report is not None:
        lines.append(f"report: {report}")
    print("\n".join(lines), file=sys.stdout if stream is None else stream, flush=True)


def sparkline(values: deque[float]) -> str:
    """One block per value, from the lowest to the highest seen; a flat line for equal values."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if high <= low:
        return BARS[0] * len(values)
    return "".join(BARS[min(int((v - low) / (high - low) * len(BARS)), len(BARS) - 1)] for v in values)


def _change_lines(change: Change) -> Iterator[str]:
    for label, accuracy in (("before", change.before), ("after", change.after)):
        if accuracy is None:
            yield f"  {label:<7} not evaluated"
        else:
            bounds = f"[{accuracy.low:6.1%}, {accuracy.high:6.1%}]"
            yield f"  {label:<7}{accuracy.mean:6.1%}  {bounds}  on {accuracy.n} prompts"
    if change.before is not None and change.after is not None:
        relation = "overlap" if change.before.overlaps(change.after) else "do not overlap"
        yield f"  change {100 * (change.after.mean - change.before.mean):+6.1f} points; the intervals {relation}"


@dataclass(slots=True)
class _Progress:
    """Where a run stands, and how long the rest will take."""

    total: int
    step: int
    clock: Callable[[], float]
    stage: str = ""
    stage_steps: int = 0
    _stage_start: int = 0
    _durations: deque[float] = field(default_factory=lambda: deque[float](maxlen=RECENT))
    _written: float | None = None

    def start_stage(self, name: str, *, steps: int, done: int) -> None:
        self.stage, self.stage_steps, self._stage_start = name, steps, self.step - done

    def advance(self, step: int) -> None:
        now = self.clock()
        if self._written is not None and step > self.step:
            self._durations.append((now - self._written) / (step - self.step))
        self.step, self._written = step, now

    @property
    def stage_done(self) -> int:
        return self.step - self._stage_start

    @property
    def eta(self) -> str:
        if not self._durations:
            return "–"
        return duration(max(self.total - self.step, 0) * sum(self._durations) / len(self._durations))


class PlainConsole:
    """One line per step, for logs: no colour, no cursor movement, the same columns in every line."""

    def __init__(
        self,
        total_steps: int,
        *,
        run: str,
        stream: TextIO,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._progress = _Progress(total_steps, done, clock)
        self._lines = 0
        self.message(f"run {run}: {total_steps} steps" + (f", {done} already done" if done else ""))

    def start_stage(self, name: str, *, steps: int, done: int = 0) -> None:
        self._progress.start_stage(name, steps=steps, done=done)
        self._lines = 0
        self.message(f"stage {name}: {steps} steps" + (f", {done} already done" if done else ""))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._progress.advance(step)
        if self._lines % HEADER_EVERY == 0:
            names = "".join(f"{column.title:>{column.width + 1}}" for column in COLUMNS)
            self.message(f"{'step':>11} {'stage':<10}{names} {'eta':>11}  accuracy")
        self._lines += 1
        cells = "".join(f"{column.text(values) or '–':>{column.width + 1}}" for column in COLUMNS)
        place = f"{step}/{self._progress.total}"
        accuracy = _accuracy(values) or "–"
        self.message(f"{place:>11} {self._progress.stage:<10.10}{cells} {self._progress.eta:>11}  {accuracy}")

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        self._stream.flush()

    def __enter__(self) -> PlainConsole:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LiveConsole:
    """A panel that is redrawn in place, with messages scrolling above it."""

    def __init__(
        self,
        total_steps: int,
        *,
        run: str,
        terminal: Terminal,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._clock, self._started = clock, clock()
        self._progress = _Progress(total_steps, done, clock)
        self._latest: dict[str, float] = {}
        self._accuracy = ""
        self._rewards: deque[float] = deque(maxlen=HISTORY)
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(self._panel(), console=terminal, refresh_per_second=4)
        self._live.start()

    def start_stage(self, name: str, *, steps: int, done: int = 0) -> None:
        self._progress.start_stage(name, steps=steps, done=done)
        self._latest.clear()
        self._rewards.clear()
        self._live.update(self._panel())

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._progress.advance(step)
        stale = [key for key in self._latest if key.startswith("timing_s/")] if "timing_s/step" in values else []
        self._latest = {key: value for key, value in self._latest.items() if key not in stale} | dict(values)
        self._accuracy = _accuracy(values) or self._accuracy
        loss = values.get("train/ce_loss", values.get("train/preference_loss", math.nan))
        reward = values.get("critic/score/mean", loss)
        if math.isfinite(reward):
            self._rewards.append(reward)
        self._live.update(self._panel())

    def message(self, text: str) -> None:
        self._live.console.print(Text(text))

    def close(self) -> None:
        """Leave the last state on the screen and give the cursor back. May be called twice."""
        self._live.stop()

    def __enter__(self) -> LiveConsole:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _panel(self) -> Panel:
        progress = self._progress
        place = Table.grid(padding=(0, 1))
        self._spinner.update(text=Text(f"{progress.stage or 'starting'}  ", style="bold"))
        steps = Text(f"{progress.stage_done}/{progress.stage_steps} of stage, {progress.step}/{progress.total} of run")
        place.add_row(self._spinner, steps)
        bar = ProgressBar(total=max(progress.total, 1), completed=progress.step, complete_style="cyan")
        line = Table.grid(expand=True, padding=(0, 2))
        line.add_column(ratio=1)
        elapsed = duration(self._clock() - self._started)
        line.add_row(bar, Text(f"{elapsed} so far, about {progress.eta} left", style="dim"))
        halves = Table.grid(expand=True, padding=(0, 2))
        halves.add_column(ratio=3)
        halves.add_column(ratio=2)
        halves.add_row(self._metrics(), self._phases())
        return Panel(Group(place, line, Text(), halves), title=Text(self._run), box=box.ROUNDED, padding=(0, 1))

    def _metrics(self) -> Table:
        table = Table.grid(padding=(0, 2))
        if self._accuracy:
            table.add_row(Text("accuracy", style="dim"), Text(self._accuracy, style="bold green"))
        for column in COLUMNS:
            if (text := column.text(self._latest)) is not None:
                table.add_row(Text(column.title, style="dim"), Text(text))
        if self._rewards:
            name = "reward" if "critic/score/mean" in self._latest else "loss"
            table.add_row(Text(f"{name} curve", style="dim"), Text(sparkline(self._rewards), style="cyan"))
        return table

    def _phases(self) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        for _ in range(2):
            table.add_column()
        table.add_column(ratio=1)
        phases = {
            key.removeprefix("timing_s/"): seconds
            for key, seconds in self._latest.items()
            if key.startswith("timing_s/") and key != "timing_s/step"
        }
        longest = max(phases.values(), default=0.0)
        for name, seconds in phases.items():
            bar = ProgressBar(total=max(longest, 1e-9), completed=seconds, complete_style="dim cyan", style="default")
            table.add_row(Text(name, style="dim"), Text(duration(seconds)), bar)
        return table


def _accuracy(values: Mapping[str, float]) -> str:
    """`sums 0.412 [0.380, 0.444]` per task that this step evaluated, or nothing."""
    suffix = "/sampled_accuracy/"
    out: list[str] = []
    for key, mean in values.items():
        if key.startswith("val-core/") and key.endswith(f"{suffix}mean"):
            stem = key.removesuffix("mean")
            task = stem.removeprefix("val-core/").removesuffix(suffix)
            low, high = values.get(f"{stem}low"), values.get(f"{stem}high")
            bounds = f" [{low:.1%}, {high:.1%}]" if low is not None and high is not None else ""
            out.append(f"{task} {mean:.1%}{bounds}")
    return ", ".join(out)
