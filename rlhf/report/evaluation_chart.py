"""One picture of an evaluation: accuracy against k and against tokens, a reliability diagram, a risk-coverage curve.

Made by `rlhf evaluate --picture FILE` from numbers that the loops have read off scored samples. Bands and bars are 95 %
intervals over prompts. What an evaluation has no numbers for stays empty, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, ScalarFormatter

from rlhf.report.calibration import Bin, Selected
from rlhf.report.curves import PALETTE, SERIES, STYLE
from rlhf.report.stats import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class AtK:
    """A number of k samples."""

    k: int
    tokens: float
    """Generated for them, on average over prompts."""
    found: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What is drawn of one task."""

    title: str
    repeated: Mapping[str, Sequence[AtK]]
    """By name, `pass@k`: rising in k."""
    greedy: AtK | None
    """Of greedy decoding, one sample."""
    reliability: Mapping[str, Sequence[Bin]]
    """By the kind of confidence."""
    selected: Mapping[str, Sequence[Selected]]
    """By the kind of confidence."""


def write(tasks: Sequence[Drawn], path: Path) -> Path:
    """Draw each task on a row of its own, in the format that the suffix names.

    Args:
        tasks: at least one.
        path: of the picture.
    """
    own: dict[Any, Any] = {
        "font.size": 8.5,
        "svg.fonttype": "path",
        "svg.hashsalt": path.stem,
        "axes.grid.axis": "both",
    }
    with matplotlib.rc_context(STYLE), matplotlib.rc_context(own):
        figure = Figure(figsize=(13.6, 3.3 * len(tasks)), layout="constrained", facecolor=PALETTE["paper"][0])
        rows = figure.subplots(len(tasks), 4, squeeze=False)
        for axes, drawn in zip(rows, tasks, strict=True):
            _against_k(axes[0], drawn, "k samples per prompt", by_tokens=False)
            _against_k(axes[1], drawn, "generated tokens per prompt", by_tokens=True)
            _reliability(axes[2], drawn.reliability)
            _risk_coverage(axes[3], drawn.selected)
            axes[0].set_ylabel(drawn.title)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _against_k(axes: Axes, drawn: Drawn, label: str, *, by_tokens: bool) -> None:
    axes.set_title("Accuracy against tokens" if by_tokens else "Accuracy against k", loc="left")
    for colour, (name, points) in zip(SERIES, drawn.repeated.items(), strict=False):
        x = [point.tokens if by_tokens else point.k for point in points]
        shade = PALETTE[colour][0]
        axes.fill_between(
            x, [p.found.low for p in points], [p.found.high for p in points], color=shade, alpha=0.16, linewidth=0
        )
        axes.plot(x, [p.found.mean for p in points], color=shade, marker="o", markersize=2.6, linewidth=1.5, label=name)
    if drawn.greedy is not None:
        x, found = drawn.greedy.tokens if by_tokens else 1, drawn.greedy.found
        axes.errorbar(
            [x],
            [found.mean],
            yerr=[[found.mean - found.low], [found.high - found.mean]],
            color=PALETTE["ink"][0],
            marker="D",
            markersize=3.5,
            capsize=2,
            linewidth=0,
            elinewidth=0.9,
            label="greedy",
        )
    ticks = sorted({point.k for points in drawn.repeated.values() for point in points})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    if not by_tokens and ticks:
        axes.xaxis.set_major_locator(FixedLocator(ticks))
    _finish(axes, label, "nothing was graded")


def _reliability(axes: Axes, kinds: Mapping[str, Sequence[Bin]]) -> None:
    axes.set_title("Reliability", loc="left")
    axes.plot([0, 1], [0, 1], color=PALETTE["muted"][0], linewidth=0.8, linestyle="--")
    for colour, (name, bins) in zip(SERIES, kinds.items(), strict=False):
        most = max(b.answers for b in bins)
        x, y = [b.confidence for b in bins], [b.accuracy.mean for b in bins]
        below = [max(0.0, b.accuracy.mean - b.accuracy.low) for b in bins]
        above = [max(0.0, b.accuracy.high - b.accuracy.mean) for b in bins]
        shade = PALETTE[colour][0]
        axes.errorbar(x, y, yerr=[below, above], color=shade, linewidth=1.2, elinewidth=0.8, capsize=1.5, label=name)
        axes.scatter(x, y, s=[6 + 44 * b.answers / most for b in bins], color=shade, zorder=3)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _finish(axes, "confidence (area of a point: answers)", "no confidence was measured", has_more=1)


def _risk_coverage(axes: Axes, kinds: Mapping[str, Sequence[Selected]]) -> None:
    axes.set_title("Accuracy of the most confident answers", loc="left")
    for colour, (name, points) in zip(SERIES, kinds.items(), strict=False):
        x, shade = [point.coverage for point in points], PALETTE[colour][0]
        axes.fill_between(
            x, [p.accuracy.low for p in points], [p.accuracy.high for p in points], color=shade, alpha=0.12, linewidth=0
        )
        axes.plot(x, [p.accuracy.mean for p in points], color=shade, linewidth=1.5, label=name)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _finish(axes, "coverage: share of answers given", "no confidence was measured")


def _finish(axes: Axes, label: str, nothing: str, *, has_more: int = 0) -> None:
    """Axis of shares, legend, or a word on why there is none."""
    axes.set_xlabel(label)
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if len(axes.lines) > has_more:
        axes.legend(frameon=False, fontsize=7.5, loc="best")
    else:
        axes.text(0.5, 0.5, nothing, transform=axes.transAxes, ha="center", color=PALETTE["muted"][0])
