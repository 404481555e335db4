"""The page of a sweep or a comparison: verdicts first, then the numbers, the curves, and what was varied.

One self-contained file like a run's report, made from a `Comparison` alone, and linked to the reports of its runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rlhf.report import page
from rlhf.report.comparison import Comparison
from rlhf.report.contrast import Estimate
from rlhf.report.curves import PALETTE, SERIES, Chart, band_chart
from rlhf.report.parts import Table
from rlhf.report.units import amount, duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Whisker:
    """A difference on its metric's scale; positions are per cent of the width."""

    arm: str
    text: str
    over: str
    at: float
    left: float
    width: float
    zero: float
    expected: tuple[float, ...]
    """Where the margins of the expectations lie."""


def write(
    found: Comparison, path: Path, tables: Mapping[str, Table] | None = None, *, reached: Table | None = None
) -> Path:
    """Write the page, replacing an earlier one in one move.

    Args:
        found: what it shows.
        path: of the page.
        tables: of tests, by their titles.
        reached: when the arms reached the baseline's best.
    """
    environment = page.environment()
    environment.filters["plain"] = _plain
    text = environment.get_template("sweep.html.j2").render(
        found=found,
        css=Markup(page.asset("page.css") + page.asset("sweep.css")),
        palette=PALETTE,
        colours=dict(zip((arm.name for arm in found.arms), SERIES * len(found.arms), strict=False)),
        whiskers={label: whiskers(found, label) for label in found.metrics},
        charts=[chart for label in found.metrics if (chart := _chart(found, label)) is not None],
        tokens=amount,
        time=duration,
        number=number,
        interval=interval,
        tables=tables or {},
        reached=reached,
    )
    return page.write(path, text)


def whiskers(found: Comparison, label: str) -> list[Whisker]:
    """The arms' differences from the baseline in one metric, on a common scale that holds zero and every margin."""
    rows = [(arm.name, estimate) for arm in found.arms if (estimate := arm.differences.get(label)) is not None]
    margins = {f.arm: _margins(f.direction, f.margin) for f in found.findings if f.metric == label}
    ends = [end for _, e in rows for end in (_low(e), _high(e))] + [m for marks in margins.values() for m in marks]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    pad = 0.06 * (high - low) or 1.0
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return [
        Whisker(
            arm=name,
            text=interval(estimate, signed=True),
            over=estimate.over,
            at=at(estimate.mean),
            left=at(_low(estimate)),
            width=round(at(_high(estimate)) - at(_low(estimate)), 2),
            zero=at(0.0),
            expected=tuple(at(mark) for mark in margins.get(name, ())),
        )
        for name, estimate in rows
    ]


def number(value: float, *, signed: bool = False) -> str:
    """Three digits after the point, or three in all where there is much before it."""
    sign = "+" if signed else ""
    if value and abs(value) < 0.0005:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.3f}" if abs(value) < 10 else f"{value:{sign},.1f}"


def interval(found: Estimate | None, *, signed: bool = False) -> str:
    """`0.512 [0.480, 0.544]`."""
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{number(found.mean, signed=signed)} (no interval)"
    return (
        f"{number(found.mean, signed=signed)} [{number(found.low, signed=signed)}, {number(found.high, signed=signed)}]"
    )


def _margins(direction: str, margin: float) -> tuple[float, ...]:
    """Where a claim about differences begins and ends; one about the arm itself is none."""
    return {"higher": (margin,), "lower": (-margin,), "same": (-margin, margin)}.get(direction, ())


def _low(found: Estimate) -> float:
    return found.mean if found.low is None else found.low


def _high(found: Estimate) -> float:
    return found.mean if found.high is None else found.high


def _chart(found: Comparison, label: str) -> Chart | None:
    bands = {arm.name: arm.curves[label] for arm in found.arms if label in arm.curves}
    return band_chart(
        bands, title=label, caption=f"{found.metrics[label]}. Line: mean of the seeds; band: their range."
    )


def _plain(value: Any) -> str:
    """A config value as YAML would show it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "{}"
    return str(value)
