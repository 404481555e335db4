"""The picture of performance profiles: the share of tasks that each method is done with, and every task's ratios.

Made by `rlhf profile --picture FILE`. Curves that coincide are drawn beside each other, not over each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from rlhf.report.curves import PALETTE, SERIES, STYLE
from rlhf.report.profiles import Profile

APART = 2.2
"""Points between curves that coincide."""
SHOWN = 2.0
"""Multiple up to which the axes go at least."""
MARKS = "osD^vPX*"


def write(methods: Mapping[str, Profile], path: Path, *, cost: str) -> Path:
    """Draw them, in the format that the suffix names.

    Args:
        methods: with the same tasks, in the order of the legend.
        path: of the picture.
        cost: what was counted, for the labels.
    """
    own: dict[Any, Any] = {"font.size": 9.0, "svg.fonttype": "path", "svg.hashsalt": path.stem}
    own |= {"axes.grid.axis": "both"}
    tasks = list(next(iter(methods.values())).ratios)
    last = max([SHOWN, *(ratio for of in methods.values() for ratio in of.ratios.values() if math.isfinite(ratio))])
    with matplotlib.rc_context(STYLE), matplotlib.rc_context(own):
        size = (9.6, max(3.6, 1.5 + (0.2 + 0.085 * len(methods)) * len(tasks)))
        figure = Figure(figsize=size, layout="constrained", facecolor=PALETTE["paper"][0])
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _profiles(left, methods, last)
        _ratios(right, methods, tasks, last)
        for axes in (left, right):
            axes.set_xlabel(f"{cost}, as a multiple of the first method's")
        handles, names = left.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(methods)), frameon=False)
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _profiles(axes: Axes, methods: Mapping[str, Profile], last: float) -> None:
    axes.set_title("Share of tasks at the target", loc="left", color=PALETTE["ink"][0])
    assert axes.figure is not None
    for i, (name, found) in enumerate(methods.items()):
        x = sorted({1.0, *(ratio for ratio in found.ratios.values() if math.isfinite(ratio)), last**1.5})
        shift = APART * (i - (len(methods) - 1) / 2) / 72
        apart = ScaledTranslation(shift, -shift, axes.figure.dpi_scale_trans)
        axes.plot(
            x,
            [found.rho(tau) for tau in x],
            drawstyle="steps-post",
            color=PALETTE[SERIES[i % len(SERIES)]][0],
            marker=MARKS[i % len(MARKS)],
            markevery=[*range(len(x) - 1)],
            markersize=4,
            linewidth=1.6,
            transform=axes.transData + apart,
            label=f"{name}, score {found.score:.2f}",
        )
    axes.set_ylim(-0.06, 1.06)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _multiples(axes, last)
    axes.set_xlim(0.94, last**1.04)


def _ratios(axes: Axes, methods: Mapping[str, Profile], tasks: list[str], last: float) -> None:
    axes.set_title("Each task", loc="left", color=PALETTE["ink"][0])
    missed = last**1.22
    lines = np.linspace(-0.3, 0.3, len(methods)) if len(methods) > 1 else np.zeros(1)
    for i, (found, line) in enumerate(zip(methods.values(), lines, strict=True)):
        x = [min(found.ratios[task], missed) for task in tasks]
        colour = PALETTE[SERIES[i % len(SERIES)]][0]
        for task, value in enumerate(x):
            axes.plot(
                value,
                task + line,
                color=colour,
                marker=MARKS[i % len(MARKS)],
                markersize=5,
                fillstyle="none" if math.isinf(found.ratios[tasks[task]]) else "full",
            )
    for border in range(len(tasks) - 1):
        axes.axhline(border + 0.5, color=PALETTE["grid"][0], linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(tasks)), tasks, color=PALETTE["ink"][0])
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    _multiples(axes, last, missed)
    axes.set_xlim(0.94, missed * last**0.08)


def _multiples(axes: Axes, last: float, missed: float | None = None) -> None:
    """A logarithmic axis of multiples, with a place for what is infinite."""
    few = (1, 1.2, 1.5, 2) if last < 3 else (1, 1.5, 2, 3, 4, 6)
    ticks = [m for m in few if m <= last] if last < 8 else [2**i for i in range(int(math.log2(last)) + 1)]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator([*ticks, *([missed] if missed is not None else [])]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "missed" if x == missed else f"{x:g}×"))
