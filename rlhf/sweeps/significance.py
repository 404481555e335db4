"""`rlhf compare`: paired tests of finished runs on the prompts they share, at their ends and at equal token budgets.

Runs of the first arm are held against runs of the same seed of every other arm. At the end of training: each held-out
measure, with an interval of the difference, the permutation test, and McNemar's where outcomes are right or wrong
(`rlhf.report.paired`); p-values are corrected by Holm's method for all tests of two runs. At equal budgets
(`rlhf.report.budget`): sampled accuracy after as many tokens of training, and maj@k, or else pass@k, for as many tokens
of answers, those of a search included. Seeds enter one by one; whether a method is better whatever the seed is what the
differences over seeds say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Printed

from rlhf.core.run_folder import write_whole
from rlhf.report.budget import AtBudget, Spent, at_equal_tokens
from rlhf.report.paired import Paired, holm, paired
from rlhf.report.parts import Cell, Table
from rlhf.report.units import amount
from rlhf.sweeps import outcome
from rlhf.sweeps.compare import Entry

ABOUT = ("step", "stage", "tokens", "task", "prompt_id", "content")
"""What a row of evaluations.jsonl says besides measures."""
ACCURACY, SPENT, LENGTH = "sampled_accuracy", "tokens_spent", "response_length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One measure of two runs, at their ends."""

    first: str
    second: str
    seed: int
    task: str
    measure: str
    found: Paired
    p_corrected: float
    """Of the permutation test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtEqualTokens:
    """Two runs at equal budgets."""

    first: str
    second: str
    seed: int
    task: str
    measure: str
    of: str
    """Whose tokens are counted: those of training, or those of answers."""
    points: tuple[AtBudget, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Significance:
    """All that the prompts of two runs or more say."""

    ends: tuple[Tested, ...]
    budgets: tuple[AtEqualTokens, ...]


Rows = Sequence[Mapping[str, Any]]


def of_runs(entries: Sequence[Entry]) -> Significance:
    """Test the runs of the first arm against those of the others."""
    ends: list[Tested] = []
    budgets: list[AtEqualTokens] = []
    for base, other in _pairs(entries):
        first, second = outcome.read(base.folder), outcome.read(other.folder)
        names = {"first": base.arm, "second": other.arm, "seed": base.seed}
        tests = list(_tests(first.evaluated, second.evaluated, seed=base.seed))
        corrected = holm([found.p_permutation for _, _, found in tests])
        ends += [
            Tested(**names, task=task, measure=measure, found=found, p_corrected=p)
            for (task, measure, found), p in zip(tests, corrected, strict=True)
        ]
        for task in _tasks(first.evaluated):
            measure, answers = _answers(first.evaluated, task)
            for what, of, histories in (
                (ACCURACY, "training", [_training(run.history, task) for run in (first, second)]),
                (measure, "answers", [answers, _answers(second.evaluated, task)[1]]),
            ):
                points = at_equal_tokens(*histories, seed=base.seed)
                budgets += [AtEqualTokens(**names, task=task, measure=what, of=of, points=points)] if points else []
    return Significance(ends=tuple(ends), budgets=tuple(budgets))


def show(tested: Significance) -> None:
    """Print the tables."""
    for title, table in tables(tested).items():
        printed = Printed(*table.columns, title=title, title_justify="left")
        for row in table.rows:
            printed.add_row(*(cell.text for cell in row))
        Console().print(printed)


def tables(tested: Significance) -> dict[str, Table]:
    """The tests as tables, two per pair of runs, by their titles; without those that are empty."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for t in tested.ends:
        p = f"{_p(t.found.p_permutation)} ({_p(t.p_corrected)})"
        row = (f"{t.task}: {t.measure}", *_change(t.found), p, _split(t.found))
        rows.setdefault(f"{_runs(t)}: at the end", []).append(row)
    for t in tested.budgets:
        for at in t.points:
            row = (
                f"{t.task}: {t.measure}",
                f"{amount(at.tokens)} {t.of}",
                *_change(at.found),
                _p(at.found.p_permutation),
            )
            rows.setdefault(f"{_runs(t)}: at equal token budgets", []).append(row)
    change = ("means", "difference [95 %]", "prompts")
    end, budget = ("measure", *change, "p (Holm)", "only one right, McNemar"), ("measure", "tokens of", *change, "p")
    return {
        title: Table(
            columns=end if title.endswith("end") else budget,
            rows=tuple(tuple(Cell(text=text) for text in row) for row in found),
        )
        for title, found in rows.items()
    }


def write(tested: Significance, path: Path) -> None:
    """Store as JSON."""
    write_whole(path, json.dumps(asdict(tested), indent=1) + "\n")


def _pairs(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    base = {entry.seed: entry for entry in entries if entry.arm == entries[0].arm}
    for entry in entries:
        if entry.arm != entries[0].arm and entry.seed in base:
            yield base[entry.seed], entry


def _tests(first: Rows, second: Rows, *, seed: int) -> Iterator[tuple[str, str, Paired]]:
    for task in _tasks(first):
        mine = [row for row in first if row["task"] == task]
        for measure in dict.fromkeys(key for row in mine for key in row if key not in ABOUT):
            found = paired(_column(first, task, measure), _column(second, task, measure), seed=seed)
            if found is not None:
                yield task, measure, found


def _tasks(rows: Rows) -> list[str]:
    return list(dict.fromkeys(str(row["task"]) for row in rows))


def _column(rows: Rows, task: str, measure: str) -> dict[str, float]:
    """A measure by prompt."""
    mine = (row for row in rows if row["task"] == task and row.get(measure) is not None)
    return {str(row["content"]): float(row[measure]) for row in mine}


def _training(history: Rows, task: str) -> list[Spent]:
    """Accuracy at each evaluation; empty where a run did not record its tokens."""
    steps = dict.fromkeys(row["step"] for row in history if "tokens" in row)
    found = {step: [row for row in history if row["step"] == step] for step in steps}
    return [Spent(tokens=rows[0]["tokens"], values=_column(rows, task, ACCURACY)) for rows in found.values()]


def _answers(rows: Rows, task: str) -> tuple[str, list[Spent]]:
    """maj@k, or pass@k where no answers were read, by the tokens that k answers take on average."""
    keys = dict.fromkeys(key for row in rows if row["task"] == task for key in row)
    kind = "maj@" if any(key.startswith("maj@") for key in keys) else "pass@"
    lengths = _column(rows, task, SPENT) or _column(rows, task, LENGTH)
    mean = sum(lengths.values()) / max(1, len(lengths))
    columns = {int(key[len(kind) :]): _column(rows, task, key) for key in keys if key.startswith(kind)}
    columns |= {1: _column(rows, task, ACCURACY)}
    return f"{kind}k", [Spent(tokens=k * mean, values=values) for k, values in sorted(columns.items())]


def _runs(tested: Tested | AtEqualTokens) -> str:
    return f"{tested.second} against {tested.first}, seed {tested.seed}"


def _change(found: Paired) -> tuple[str, str, str]:
    """Both means, their difference, and on how many prompts."""
    d = found.difference
    return f"{found.first:.3f} → {found.second:.3f}", f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]", str(d.n)


def _split(found: Paired) -> str:
    """Prompts that only one of the runs gets right, and McNemar's p; empty where outcomes are not right or wrong."""
    return "" if found.p_mcnemar is None else f"{found.only_first} : {found.only_second}, {_p(found.p_mcnemar)}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.0e}"
