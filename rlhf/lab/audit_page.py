"""What `rlhf audit` shows: tables in the terminal, a page with every disagreement, and the figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf.core.run_folder import write_whole
from rlhf.lab.audit import Audit, Finding, Graded, Tally
from rlhf.report import lab_page
from rlhf.report.lab_page import Cell, Figures, Gallery, LabPage, Sight

HEAD = (
    "corpus",
    "grader",
    "answers",
    "labelled",
    "agreement",
    "false +",
    "false −",
    "ungraded",
    "p50 ms",
    "p99 ms",
    "max ms",
)
_ON_THE_PAGE_ONLY = frozenset({HEAD.index("labelled"), HEAD.index("p99 ms")})
"""Columns that a terminal of eighty characters has no room for."""
SHOWN = 400
"""Cases of one corpus on the page."""
LONG = 4000
"""Characters of an answer that are shown."""


def show(found: Audit) -> None:
    """Print the figures, what falls short, and the first disagreements."""
    console = Console()
    console.print(found.title, style="bold", markup=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for n, name in enumerate(HEAD):
        if n not in _ON_THE_PAGE_ONLY:
            table.add_column(name.replace(" ", "\n"), justify="left" if n < 2 else "right", overflow="fold")
    for row in [row for finding in found.findings for row in _rows(finding)]:
        cells = [cell for n, cell in enumerate(row) if n not in _ON_THE_PAGE_ONLY]
        table.add_row(*(Text(cell.text, style="red" if cell.good is False else "") for cell in cells))
    console.print(table)
    for finding in found.findings:
        for limit in finding.limits:
            if not limit.holds:
                said = f"{finding.name}: {limit.name} {limit.measured}, allowed {limit.allowed}"
                console.print(said, style="red", markup=False, highlight=False)
        for graded in _faults(finding)[:10]:
            line = f"  {graded.fault}: {graded.case.id}, gold {graded.case.gold!r}, read {graded.out.extracted!r}"
            console.print(line[:240], markup=False, highlight=False)
    console.print("all limits hold" if found.holds else "some limits do not hold", highlight=False)


def write(found: Audit, path: Path, *, command: str) -> None:
    """Write the page, and its figures beside it as `.json`.

    Raises:
        RunFolderError: the disk refuses.
    """
    overall = Figures(
        title="Graders",
        intro="False + are wrong answers that were graded correct, false − right ones that were not; where refusals are"
        " looked for, answers that were taken for one, and refusals that were not. Without a label"
        " either grade will do. Times are those of one answer: median, 99th percentile and longest.",
        head=HEAD,
        rows=[row for finding in found.findings for row in _rows(finding)],
    )
    limits = Figures(
        title="Limits",
        intro="What the audit demands of the first grader of each corpus.",
        head=("corpus", "limit", "measured", "allowed"),
        rows=[
            [Cell(text=f.name), Cell(text=x.name), Cell(text=x.measured, good=x.holds), Cell(text=x.allowed)]
            for f in found.findings
            for x in f.limits
        ],
    )
    page = LabPage(
        kicker="audit",
        title=found.title,
        state="all limits hold" if found.holds else "some limits do not hold",
        good=found.holds,
        command=command,
        figures=[overall, limits, *(_categories(finding) for finding in found.findings)],
        galleries=[gallery for finding in found.findings for gallery in _galleries(finding)],
    )
    lab_page.write(page, path)
    write_whole(path.with_suffix(".json"), json.dumps(figures(found), indent=1) + "\n")


def figures(found: Audit) -> dict[str, Any]:
    """Everything measured, without the answers."""
    return {
        "title": found.title,
        "holds": found.holds,
        "corpora": {
            finding.name: {
                "limits": {x.name: [x.measured, x.allowed, x.holds] for x in finding.limits},
                "graders": {
                    name: _tally(tally) | {"categories": {c: _tally(t) for c, t in tally.by_category().items()}}
                    for name, tally in finding.tallies.items()
                },
            }
            for finding in found.findings
        },
    }


def _tally(tally: Tally) -> dict[str, float]:
    return {
        "answers": len(tally.graded),
        "labelled": tally.labelled,
        "agreement": round(tally.agreement, 6),
        "false_positives": tally.count("false positive"),
        "false_negatives": tally.count("false negative"),
        "ungraded": tally.count("not graded"),
    }


def _rows(finding: Finding) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for name, tally in finding.tallies.items():
        own = tally is finding.own
        rows.append(
            [
                Cell(text=finding.name if own else ""),
                Cell(text=name),
                Cell(text=f"{len(tally.graded):,}"),
                Cell(text=f"{tally.labelled:,}"),
                Cell(text=f"{tally.agreement:.2%}", good=finding.holds if own else None),
                *(Cell(text=f"{tally.count(fault):,}") for fault in ("false positive", "false negative", "not graded")),
                *(Cell(text=_digits(tally.milliseconds(share))) for share in (0.5, 0.99, 1.0)),
            ]
        )
    return rows


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _categories(finding: Finding) -> Figures:
    names = list(finding.tallies)
    parts = {name: tally.by_category() for name, tally in finding.tallies.items()}
    rows: list[list[Cell]] = []
    for category, own in finding.own.by_category().items():
        cells = [Cell(text=category or "–"), Cell(text=f"{len(own.graded):,}")]
        for name in names:
            part = parts[name][category]
            faults = part.count("false positive"), part.count("false negative"), part.count("not graded")
            clean = not any(faults)
            text = "100%" if clean else f"{part.agreement:.1%} (+{faults[0]} −{faults[1]} ?{faults[2]})"
            cells.append(Cell(text=text, good=None if clean or name != names[0] else False))
        rows.append(cells)
    intro = "Agreement by category; in brackets false positives, false negatives and ungraded answers."
    return Figures(title=finding.name, intro=intro, head=("category", "answers", *names), rows=rows)


def _faults(finding: Finding) -> list[Graded]:
    return [graded for graded in finding.own.graded if graded.fault]


def _galleries(finding: Finding) -> list[Gallery]:
    """What the grader gets wrong, then where the others see it otherwise though it is right."""
    others = {name: tally for name, tally in finding.tallies.items() if tally is not finding.own}
    wrong: list[Sight] = []
    apart: list[Sight] = []
    for n, graded in enumerate(finding.own.graded):
        beside = {name: tally.graded[n] for name, tally in others.items()}
        if graded.fault:
            wrong.append(_sight(graded, beside))
        elif any(other.accepted != graded.accepted or other.out.value is None for other in beside.values()):
            apart.append(_sight(graded, beside))
    out = [_gallery(f"{finding.name}: disagreements", "Graded otherwise than labelled.", wrong)]
    if others:
        intro = f"Graded as labelled, and otherwise by {' or '.join(others)}."
        out.append(_gallery(f"{finding.name}: other graders", intro, apart))
    return out


def _gallery(title: str, intro: str, sights: Sequence[Sight]) -> Gallery:
    return Gallery(title=title, intro=intro, sights=sights[:SHOWN], left_out=max(0, len(sights) - SHOWN))


def _sight(graded: Graded, beside: dict[str, Graded]) -> Sight:
    case, out = graded.case, graded.out
    asked = graded.asked.value
    label = "either" if case.label is None else asked if case.label else f"not {asked}"
    facts = [
        ("category", case.category or "–"),
        ("label", label),
        ("gold", case.gold[:LONG]),
        ("read", str(out.extracted)[:LONG] if out.extracted is not None else "–"),
        ("verdict", f"{out.verdict.value}, {out.reason}"),
        *((name, f"{other.out.verdict.value}, {other.out.reason}") for name, other in beside.items()),
    ]
    text = case.completion
    shown = text if len(text) <= LONG else f"{text[: LONG // 2]} … {len(text):,} characters … {text[-LONG // 2 :]}"
    return Sight(
        title=case.id,
        mark=graded.fault or "as labelled",
        good=False if graded.fault else None,
        facts=facts,
        texts=[("answer", shown)],
    )
