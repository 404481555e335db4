"""What a chapter of the HTML page is made of: charts, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.report.curves import Chart, Line, line_chart
from rlhf.report.record import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """`colour` names a CSS variable for a swatch; `share` in [0, 1] draws a bar."""

    text: str
    colour: str = ""
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The first column holds names, the others numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    id: str
    title: str
    intro: str
    charts: tuple[Chart, ...]
    table: Table | None = None


def lines(
    run: Run, title: str, caption: str, keys: dict[str, str], *, percent: bool = False, log: bool = False
) -> Chart | None:
    """One line per metric that the run wrote, by label; None without any."""
    drawn_lines = [Line(key=key, label=label) for label, key in keys.items()]
    return line_chart(run, title=title, caption=caption, lines=drawn_lines, percent=percent, log=log)


def drawn(charts: Sequence[Chart | None]) -> tuple[Chart, ...]:
    """The charts whose metrics the run wrote."""
    return tuple(chart for chart in charts if chart is not None)
