"""The chapter of the HTML page with every held-out measure of the last evaluation, and curves of several samples.

Measures of refusals and stated confidence have a chapter of their own (`rlhf.report.sections`).
"""

from __future__ import annotations

import re
from collections.abc import Collection

from rlhf.report.curves import Chart
from rlhf.report.parts import Cell, Section, Table, drawn, lines
from rlhf.report.record import Run

_MEASURE = re.compile(r"val-(?P<kind>core|aux)/(?P<task>[^/]+)/(?P<what>.+)/mean")
_OF_K = re.compile(r"(?:pass@|maj@|pass\^)(?P<k>\d+)")


def section(run: Run, *, elsewhere: Collection[str]) -> Section:
    """Every measure that has an interval.

    Args:
        run: whose evaluations.
        elsewhere: measures that another chapter shows.
    """
    found = [match for key in run.series if (match := _MEASURE.fullmatch(key)) and match["what"] not in elsewhere]
    rows: list[tuple[Cell, ...]] = []
    for match in found:
        prefix = match.string.removesuffix("/mean")
        bounds = [run.values(f"{prefix}/{bound}") for bound in ("mean", "low", "high")]
        if all(bounds):
            name = Cell(text=f"{match['task']}: {match['what'].replace('_', ' ')}")
            rows.append((name, *(Cell(text=f"{values[-1]:.3f}") for values in bounds)))
    return Section(
        id="held-out",
        title="Held-out measures",
        intro="Of the last evaluation, with 95% intervals over prompts; docs/evaluation.md has every formula.",
        charts=drawn([_several(run, task) for task in run.tasks]),
        table=Table(columns=("held-out, last evaluation", "mean", "low", "high"), rows=tuple(rows)) if rows else None,
    )


def _several(run: Run, task: str) -> Chart | None:
    """What the most samples of a prompt give, by step; None where one sample was all."""
    of_k: dict[str, tuple[str, int]] = {}
    for key in run.series:
        match = _MEASURE.fullmatch(key)
        several = _OF_K.fullmatch(match["what"]) if match is not None and match["task"] == task else None
        if several is not None:
            of_k[several.string] = key, int(several["k"])
    most = max((k for _, k in of_k.values()), default=1)
    if most == 1:
        return None
    kept = {name: key for name, (key, k) in of_k.items() if k == most}
    title = f"Of {most} samples" + (f": {task}" if len(run.tasks) > 1 else "")
    caption = "At least one right (pass@k), the most frequent answer (maj@k), all right (pass^k), and one alone."
    return lines(run, title, caption, {"one": f"val-core/{task}/sampled_accuracy/mean"} | kept, percent=True)
