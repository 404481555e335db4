"""What `rlhf rescore` shows: tables, a page with the samples that change most, and all of them as rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rlhf.core.run_folder import write_whole
from rlhf.lab.rescore import Changed, Rescored
from rlhf.lab.score import result
from rlhf.report import lab_page
from rlhf.report.lab_page import Cell, Figures, Gallery, LabPage, Sight

SHOWN = 100
"""Samples on the page, those with the largest change first."""


def show(found: Rescored) -> None:
    """Print the tables."""
    console = Console()
    for figures in tables(found):
        table = Table(*figures.head, title=figures.title, title_justify="left")
        for row in figures.rows:
            table.add_row(*(cell.text for cell in row))
        console.print(table)
    console.print(f"{len(found.changed):,} of {found.samples:,} samples change", highlight=False)
    if found.not_compared:
        console.print(f"advantages are not compared: {found.not_compared}", highlight=False)


def write(found: Rescored, path: Path, *, command: str, title: str) -> None:
    """Write the page, and beside it `.jsonl` with every sample that changes.

    Raises:
        RunFolderError: the disk refuses.
    """
    worst = sorted(found.changed, key=_size, reverse=True)
    lab_page.write(
        LabPage(
            kicker="rescore",
            title=title,
            state=f"{len(found.changed):,} of {found.samples:,} samples change",
            good=not found.changed,
            intro="What is on record against what the other config gives to the same answers."
            + (f" Advantages are not compared: {found.not_compared}." if found.not_compared else ""),
            command=command,
            figures=tables(found),
            galleries=[
                Gallery(
                    title="Samples that change",
                    intro="Another verdict first, then by how much the value moves.",
                    sights=[_sight(changed) for changed in worst[:SHOWN]],
                    left_out=max(0, len(worst) - SHOWN),
                )
            ],
        ),
        path,
    )
    rows = (json.dumps(_row(changed)) for changed in found.changed)
    write_whole(path.with_suffix(".jsonl"), "".join(f"{row}\n" for row in rows))


def tables(found: Rescored) -> list[Figures]:
    """The figures, for the terminal and the page."""
    out = [_verdicts(found), _values(found), _order(found)]
    return out if found.not_compared else [*out, _advantages(found)]


def _verdicts(found: Rescored) -> Figures:
    before = sorted({was for was, _ in found.verdicts})
    after = sorted({now for _, now in found.verdicts})
    rows = [[Cell(text=was), *(_moved(found.verdicts[was, now], moved=was != now) for now in after)] for was in before]
    head = ["recorded as", *(f"now {now}" for now in after)]
    return Figures(title="Verdicts", intro="Samples by verdict, before and after.", head=head, rows=rows)


def _moved(count: int, *, moved: bool) -> Cell:
    return Cell(text=f"{count:,}" if count else "–", good=False if count and moved else None)


def _values(found: Rescored) -> Figures:
    rows = [[Cell(text=name), *_spread(values)] for name, values in zip(("recorded", "now"), found.values, strict=True)]
    rows += [[Cell(text=f"now, {name}"), *_spread(values)] for name, values in found.parts.items()]
    return Figures(
        title="Rewards",
        intro="Of graded samples; below, the parts of the new reward without their weights.",
        head=["", "graded", "mean", "standard deviation", "lowest", "highest"],
        rows=rows,
    )


def _spread(values: Sequence[float]) -> list[Cell]:
    if not values:
        return [Cell(text="0"), *[Cell(text="–")] * 4]
    figures = (np.mean(values), np.std(values), min(values), max(values))
    return [Cell(text=f"{len(values):,}"), *(Cell(text=f"{figure:.3f}") for figure in figures)]


def _order(found: Rescored) -> Figures:
    order = found.order
    counts = {
        "the same": order.kept,
        "ordered before, equal now": order.tied,
        "equal before, ordered now": order.untied,
        "the other way round": order.reversed,
    }
    total = max(1, sum(counts.values()))
    rows = [[Cell(text=name), Cell(text=f"{n:,}"), Cell(text=f"{n / total:.1%}")] for name, n in counts.items()]
    intro = "Pairs of answers to the same prompt, by which of the two is worth more."
    return Figures(title="Ranks", intro=intro, head=["order", "pairs", "share"], rows=rows)


def _advantages(found: Rescored) -> Figures:
    names = {-1: "negative", 0: "none", 1: "positive"}
    rows = [
        [Cell(text=name), *(_moved(found.signs[was, now], moved=was != now) for now in names)]
        for was, name in names.items()
    ]
    before, after = (sum(n for both, n in found.signal.items() if both[side]) for side in (0, 1))
    intro = f"Samples by the sign of their advantage. {before:,} groups taught something before, {after:,} would now."
    left, right = found.pairs
    if len(left) > 1 and np.std(left) > 0 and np.std(right) > 0:
        alike = float(np.corrcoef(left, right)[0, 1])
        intro += f" Correlation of the two advantages of a sample: {alike:.3f}."
    return Figures(title="Advantages", intro=intro, head=["recorded", *(f"now {n}" for n in names.values())], rows=rows)


def _size(changed: Changed) -> tuple[bool, float]:
    was, now = changed.record["value"], changed.out.value
    moved = changed.record["verdict"] != changed.out.verdict.value
    return moved, float("inf") if (was is None) != (now is None) else abs((now or 0.0) - (was or 0.0))


def _sight(changed: Changed) -> Sight:
    record, out = changed.record, changed.out
    moved = record["verdict"] != out.verdict.value
    facts = [
        ("value", f"{_number(record['value'])} → {_number(out.value)}"),
        ("rank", f"{changed.ranks[0] or '–'} → {changed.ranks[1] or '–'}"),
        ("advantage", f"{_number(changed.advantages[0])} → {_number(changed.advantages[1])}"),
        ("reason", f"{record['reason']} → {out.reason}"),
        ("read", f"{record['extracted']!r} → {out.extracted!r}"),
        ("gold", str(record["gold"])),
        *((name, _number(value)) for name, value in out.breakdown.items()),
    ]
    mark = f"{record['verdict']} → {out.verdict.value}" if moved else record["verdict"]
    texts = [("prompt", str(record["prompt"])), ("answer", str(record["text"]))]
    return Sight(title=str(record["id"]), mark=mark, good=False if moved else None, facts=facts, texts=texts)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _row(changed: Changed) -> dict[str, Any]:
    before = {"rank": changed.ranks[0], "advantage": changed.advantages[0]}
    kept = {
        key: value for key, value in changed.record.items() if key not in ("value", "verdict", "reason", "extracted")
    }
    old = {key: changed.record[key] for key in ("value", "verdict", "reason", "extracted")}
    new = result(changed.out, 0) | {"rank": changed.ranks[1], "advantage": changed.advantages[1]}
    del new["index"]
    return {**kept, "before": old | before, "after": new}
