"""Curves of a run: inline SVG for the HTML page, and one standalone picture for a README.

The page's charts are drawn by matplotlib without pyplot, so nothing depends on a display or on global state. Their
colours come from `PALETTE` and leave as CSS variables: one drawing serves light and dark mode. Text in a drawing is
never parsed as maths, and matplotlib escapes it. Long runs are thinned to `POINTS` per line, keeping each bin's
extremes, so that a spike survives and a page stays small; of many evaluations an even choice is drawn.
"""

from __future__ import annotations

import io
import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from rlhf.report.comparison import Band
from rlhf.report.record import Evaluation, Run, Series, Span, read_run

POINTS, BINS, EVALUATIONS = 320, 110, 80
FEW = 12
"""Curves of up to this many values are drawn as they are, with a mark at each."""
PALETTE = {
    "ink": ("#1d2433", "#e6e9ef"),
    "muted": ("#667085", "#98a2b3"),
    "grid": ("#e4e7ec", "#2f3744"),
    "shade": ("#f4f6f9", "#12151b"),
    "paper": ("#fffffe", "#1a1f27"),
    "c0": ("#2f6fdb", "#6ea2ff"),
    "c1": ("#dd8327", "#f0a95b"),
    "c2": ("#2b9a6c", "#52c494"),
    "c3": ("#8a5bcb", "#b590ee"),
    "c4": ("#d0485f", "#f0788c"),
    "c5": ("#1a9cb0", "#4fc4d6"),
    "c6": ("#a37a35", "#d0a760"),
    "c7": ("#7b879b", "#a3aec0"),
    "correct": ("#2b9a6d", "#46b888"),
    "wrong": ("#9aa6b8", "#6c788c"),
    "no_answer": ("#e3b341", "#e0b552"),
    "refused": ("#5b8fb9", "#7fb0d6"),
    "unparsable": ("#dd8328", "#e8974a"),
    "timeout": ("#d0485e", "#ea6b80"),
    "crash": ("#8c1d35", "#c23f5c"),
    "skipped": ("#d5dae3", "#3b4453"),
}
"""CSS variable to its (light, dark) value. Light values are distinct: a drawing is recoloured by them."""
SERIES = tuple(f"c{i}" for i in range(8))
NUMBER = FuncFormatter(lambda value, _: text if len(text := f"{value:,.4g}") < 8 else f"{value:.1e}")
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.linewidth": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0.0,
    "axes.edgecolor": PALETTE["muted"][0],
    "grid.color": PALETTE["grid"][0],
    "text.color": PALETTE["ink"][0],
    "xtick.color": PALETTE["muted"][0],
    "ytick.color": PALETTE["muted"][0],
    "axes.labelcolor": PALETTE["muted"][0],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One metric in a chart and what it is called there."""

    key: str
    label: str
    smoothed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A legend entry: `colour` names a CSS variable."""

    label: str
    colour: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawing that is safe to put into a page as it stands, with what stands around it (to be escaped)."""

    title: str
    caption: str
    legend: tuple[Key, ...]
    svg: str


def line_chart(
    run: Run, *, title: str, caption: str, lines: Sequence[Line], percent: bool = False, log: bool = False
) -> Chart | None:
    """Raw values, faint, under their moving average; None when no line has a value.

    `log` uses a logarithmic axis where all values are positive and span more than one and a half decades.
    """
    present = [line for line in lines if run.values(line.key)]
    if not present:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(run)
        for colour, line in zip(SERIES, present, strict=False):
            _draw_line(axes, run, line, PALETTE[colour][0])
        extremes = [v for line in present for v in (min(run.values(line.key)), max(run.values(line.key)))]
        if log and min(extremes) > 0 and max(extremes) > 30 * min(extremes):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(NUMBER)
            axes.minorticks_off()
        elif percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            if min(extremes) == max(extremes):  # around a share that stands still matplotlib would show some below 0
                axes.set_ylim(-0.02, 1.02)
        legend = tuple(Key(label=line.label, colour=c) for c, line in zip(SERIES, present, strict=False))
        return Chart(title=title, caption=caption, legend=legend, svg=_svg(figure, title))


def accuracy_chart(run: Run, *, title: str, caption: str) -> Chart | None:
    """Every evaluation with its 95% interval, one line per task and kind."""
    evaluations = _evaluations(run)
    if not evaluations:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(run)
        legend = _draw_accuracy(axes, evaluations)
        return Chart(title=title, caption=caption, legend=legend, svg=_svg(figure, title))


def stacked_chart(run: Run, *, title: str, caption: str, keys: Sequence[tuple[str, Key]], share: bool) -> Chart | None:
    """Amounts per step stacked on each other, averaged over bins of steps; `share` scales each bin to 100%."""
    present = [(key, entry) for key, entry in keys if any(run.values(key))]
    if not present:
        return None
    steps = np.unique(np.concatenate([np.asarray(run.series[key].steps) for key, _ in present]))
    amounts = np.zeros((len(present), len(steps)))
    for row, (key, _) in zip(amounts, present, strict=True):
        row[np.searchsorted(steps, run.series[key].steps)] = run.series[key].values
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(run)
        for span in run.stages:
            inside = (steps >= span.first) & (steps <= span.last)
            if inside.any():
                _draw_stack(axes, steps[inside], amounts[:, inside], [entry.colour for _, entry in present], share)
        if share:
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.margins(y=0)
        legend = tuple(entry for _, entry in present)
        return Chart(title=title, caption=caption, legend=legend, svg=_svg(figure, title))


def band_chart(bands: Mapping[str, Band], *, title: str, caption: str) -> Chart | None:
    """Learning curves of several arms: the mean over seeds, and the range of the seeds behind it."""
    shown = dict(itertools.islice(((name, band) for name, band in bands.items() if band.steps), len(SERIES)))
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = _blank()
        for colour, band in zip(SERIES, shown.values(), strict=False):
            mark = "o" if len(band.steps) <= FEW else ""
            axes.fill_between(band.steps, band.low, band.high, color=PALETTE[colour][0], alpha=0.18, linewidth=0)
            axes.plot(band.steps, band.mean, color=PALETTE[colour][0], linewidth=1.6, marker=mark, markersize=2.2)
        legend = tuple(Key(label=name, colour=c) for c, name in zip(SERIES, shown, strict=False))
        return Chart(title=title, caption=caption, legend=legend, svg=_svg(figure, title))


def write_curve(run_folder: Path, out_path: Path) -> Path:
    """A picture of held-out accuracy and training reward, in the format that the suffix of `out_path` names."""
    run = read_run(run_folder)
    own: dict[Any, Any] = {"font.size": 9.0, "svg.fonttype": "path", "svg.hashsalt": run.name}
    with matplotlib.rc_context(STYLE), matplotlib.rc_context(own):
        figure = Figure(figsize=(9.6, 3.3), layout="constrained", facecolor=PALETTE["paper"][0])
        left, right = figure.subplots(1, 2)
        for axes, title in ((left, "Held-out accuracy (95% interval)"), (right, "Training reward")):
            axes.set_title(title, loc="left", fontsize=10, color=PALETTE["ink"][0], pad=16)
            _draw_stages(axes, run.stages)
            axes.set_xlabel("step")
        entries = _draw_accuracy(left, _evaluations(run))
        if len(entries) > 1:
            left.legend(frameon=False, fontsize=8)
        _draw_line(right, run, Line(key="critic/score/mean", label="score"), PALETTE["c0"][0])
        for axes, drawn in ((left, entries), (right, run.values("critic/score/mean"))):
            if not drawn:
                axes.text(0.5, 0.5, "not recorded in this run", transform=axes.transAxes, ha="center")
        figure.savefig(out_path, dpi=160, metadata={"Date": None} if out_path.suffix == ".svg" else None)
    return out_path


def thin(values: NDArray[np.float64], points: int) -> NDArray[np.intp]:
    """Indices of at most `points` values that keep the lowest and the highest of every bin, in order."""
    if len(values) <= points:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), points // 2 + 1).astype(int)
    kept: set[int] = set()
    for start, end in itertools.pairwise(edges):
        kept |= {start + int(values[start:end].argmin()), start + int(values[start:end].argmax())}
    return np.asarray(sorted(kept), dtype=np.intp)


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred moving average over about a twentieth of the curve, over what there is of the window at the ends."""
    index = np.arange(len(values))
    reach = min(max(len(values) // 40, 2), 50)
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach, len(values) - 1)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return (sums[last + 1] - sums[first]) / (last + 1 - first)


def _figure(run: Run) -> tuple[Figure, Axes]:
    figure, axes = _blank()
    _draw_stages(axes, run.stages)
    return figure, axes


def _blank() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 2.35))
    axes = figure.add_axes((0.092, 0.115, 0.898, 0.79))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(NUMBER)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure, axes


class _Steps(MaxNLocator):
    """Ticks at steps that there are: one in the margin behind the last would lose half of its label."""

    def __init__(self, last: float) -> None:
        super().__init__(8, integer=True)
        self._last = last

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """See `matplotlib.ticker.Locator`."""
        return [tick for tick in super().tick_values(vmin, vmax) if tick <= self._last]


def _draw_stages(axes: Axes, stages: Sequence[Span]) -> None:
    """Shade every other stage and name all, above the axes."""
    if not stages:
        return
    first, last = stages[0].first, max(stages[-1].last, stages[0].first + 1)
    pad = 0.012 * (last - first)
    axes.set_xlim(first - pad, last + pad)
    axes.xaxis.set_major_locator(_Steps(last))
    if len(stages) == 1:
        return
    for i, span in enumerate(stages):
        left, right = (span.first - 0.5 if i else first - pad), span.last + (0.5 if i < len(stages) - 1 else pad)
        if i % 2:
            axes.axvspan(left, right, color=PALETTE["shade"][0], zorder=0, linewidth=0)
        room = int(70 * (right - left) / (last - first + 2 * pad))
        name = "".join(character for character in span.name if character.isprintable())
        if room > 2:
            name = name if len(name) <= room else f"{name[: room - 1]}…"
            place = axes.get_xaxis_transform()
            axes.text((left + right) / 2, 1.03, name, transform=place, ha="center", color=PALETTE["muted"][0])


def _draw_line(axes: Axes, run: Run, line: Line, colour: str) -> None:
    """Stages are drawn apart: a line across their border would tell of a change that no update made."""
    series = run.series.get(line.key, Series())
    for span in run.stages:
        inside = slice(bisect_left(series.steps, span.first), bisect_right(series.steps, span.last))
        steps, values = np.asarray(series.steps[inside], dtype=float), np.asarray(series.values[inside])
        kept = thin(values, POINTS)
        if len(values) <= FEW or not line.smoothed:
            mark = "o" if len(values) <= FEW else ""
            axes.plot(steps[kept], values[kept], color=colour, linewidth=1.5, marker=mark, markersize=2.2)
            continue
        even = np.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(int)
        axes.plot(steps[kept], values[kept], color=colour, linewidth=0.7, alpha=0.38)
        axes.plot(steps[even], smooth(values)[even], color=colour, linewidth=1.6)


def _evaluations(run: Run) -> list[Evaluation]:
    """As many as there are colours, sampled accuracy first, so that no task is missing as long as there is room."""
    return sorted(run.evaluations(), key=lambda e: e.what != "sampled_accuracy")[: len(SERIES)]


def _draw_accuracy(axes: Axes, evaluations: Sequence[Evaluation]) -> tuple[Key, ...]:
    several = len({evaluation.task for evaluation in evaluations}) > 1
    legend: list[Key] = []
    for colour, evaluation in zip(SERIES, evaluations, strict=False):
        shown = np.unique(np.linspace(0, len(evaluation.points) - 1, EVALUATIONS).astype(int))
        points, kind = [evaluation.points[i] for i in shown], evaluation.what.replace("_accuracy", "")
        legend.append(Key(label=f"{evaluation.task}: {kind}" if several else kind, colour=colour))
        means = [point.mean for point in points]
        below = [max(point.mean - point.low, 0.0) for point in points]
        above = [max(point.high - point.mean, 0.0) for point in points]
        axes.errorbar(
            [point.step for point in points],
            means,
            yerr=[below, above],
            color=PALETTE[colour][0],
            linewidth=1.5,
            linestyle="-" if evaluation.what == "sampled_accuracy" else "--",
            elinewidth=0.9,
            capsize=2.0,
            marker="o",
            markersize=3.0,
            label=legend[-1].label,
        )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if evaluations:
        low = min(point.low for evaluation in evaluations for point in evaluation.points)
        high = max(point.high for evaluation in evaluations for point in evaluation.points)
        pad = max(0.1 * (high - low), 0.01)
        axes.set_ylim(max(low - pad, -0.015), min(high + pad, 1.015))
    return tuple(legend)


def _draw_stack(
    axes: Axes, steps: NDArray[np.int64], amounts: NDArray[np.float64], colours: Sequence[str], share: bool
) -> None:
    edges = np.unique(np.linspace(0, len(steps), min(len(steps), BINS) + 1).astype(int))
    sizes = np.diff(edges)
    binned = np.add.reduceat(amounts, edges[:-1], axis=1) / sizes
    if share:
        binned = binned / np.maximum(binned.sum(axis=0), 1e-12)
    left = np.append(steps[edges[:-1]], steps[-1] + 1) - 0.5
    tops = np.hstack([binned, binned[:, -1:]])
    axes.stackplot(left, tops, colors=[PALETTE[c][0] for c in colours], step="post", linewidth=0)


def _svg(figure: Figure, name: str) -> str:
    """Shorten matplotlib's SVG, let the page set size and font, and turn the palette into CSS variables."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<(metadata|style).*?</\1>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg class="chart" aria-hidden="true" \1>', text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r' id="[A-Za-z\d.]+_\d+"', "", text)
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag.group()), text)
    text = re.sub(r">\s+<", "><", text)
    for variable, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{variable})")
    return text
