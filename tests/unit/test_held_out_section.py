"""The report's chapter of held-out measures: what is in its table, and which curves are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf.report import held_out
from rlhf.report.record import Run, read_run


def run(folder: Path, *names: str) -> Run:
    """Two evaluations; a measure is a tenth of its place in the second, with bounds around it."""
    rows: list[dict[str, Any]] = []
    for step in (1, 2):
        row: dict[str, Any] = {"step": step, "stage": "rl", "val-aux/sums/ungradable": 0.0}
        for place, name in enumerate(names):
            value = 0.1 * place * step / 2
            row |= {f"{name}/mean": value, f"{name}/low": value - 0.05, f"{name}/high": value + 0.05}
        rows.append(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_run(folder)


def test_every_measure_of_the_last_evaluation_is_in_the_table_but_those_shown_elsewhere(tmp_path: Path) -> None:
    names = ("sampled_accuracy", "pass@1", "pass@8", "pass^8", "maj@8", "pass@2")
    found = run(tmp_path, *(f"val-core/sums/{name}" for name in names), "val-aux/sums/sampled/pa", "val-aux/sums/brier")
    section = held_out.section(found, elsewhere=("brier",))
    assert section.table is not None
    texts = [[cell.text for cell in row] for row in section.table.rows]
    assert [row[0] for row in texts] == [f"sums: {name.replace('_', ' ')}" for name in (*names, "sampled/pa")]
    assert texts[2] == ["sums: pass@8", "0.200", "0.150", "0.250"]
    [chart] = section.charts
    assert chart.title == "Of 8 samples"
    assert {key.label for key in chart.legend} == {"one", "pass@8", "pass^8", "maj@8"}


def test_with_one_sample_there_are_no_curves_and_without_evaluations_nothing(tmp_path: Path) -> None:
    section = held_out.section(run(tmp_path, "val-core/sums/sampled_accuracy", "val-core/sums/pass@1"), elsewhere=())
    assert section.charts == () and section.table is not None
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "stage": "rl"}\n')
    empty = held_out.section(read_run(tmp_path), elsewhere=())
    assert empty.table is None and empty.charts == ()
