"""Labelled answers from a file: .jsonl, .json or .parquet, or a dataset on the hub.

Rows are filtered by their columns, so that one file serves several corpora. A label is true or false, 1 or 0, or a list
of the values that would be right (`[0]`, `[0, 1]`); rows without one are left out. Source: the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from rlhf.core.errors import ConfigError, DataError
from rlhf.data import sources
from rlhf.lab.cases import Case

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which rows, and where they hold what."""

    path: str = ""
    """File, or id on the hub. Required."""
    completion: str = "completion"
    """Column of the answer."""
    pieces: str = ""
    """Column of long answers, as a list of (text, times) pairs, for rows that have no `completion`."""
    gold: str = "gold"
    """Column of the reference answer."""
    gold_after: str = ""
    """The gold is what follows the last occurrence of this in its column."""
    label: str = "label"
    """Column of the label."""
    category: str = "category"
    """Column by which results are listed."""
    where: dict[str, Any] = field(default_factory=dict[str, Any])
    """Only rows whose columns have these values; a list names several."""
    without: dict[str, Any] = field(default_factory=dict[str, Any])
    """No rows whose columns have these values."""
    box: dict[str, Any] = field(default_factory=dict[str, Any])
    r"""Rows whose answer is bare, to be put into a \boxed{} as a model would; those that have a box keep theirs."""
    canary: str = ""
    """Folder that the file's own code injections write to, if they name one."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("path", "is required", fix="name a file of labelled answers")


def cases(cfg: Config, *, seed: int, canary: str) -> Iterator[Case]:
    """Every labelled row that passes the filters.

    Raises:
        DataError: no such file, or a row without answer, gold or label; names the row.
    """
    for n, row in enumerate(sources.rows(cfg.path, split="test", where="corpus.path"), start=1):
        where = f"{cfg.path}, row {n}"
        if not _matches(row, cfg.where) or (cfg.without and _matches(row, cfg.without)):
            continue
        answer, gold = _text(row, cfg, where), str(_column(row, cfg.gold, where, "gold"))
        if cfg.box and _matches(row, cfg.box) and "\\boxed" not in answer:
            answer = f"\\boxed{{{answer}}}"
        labelled, label = _label(_column(row, cfg.label, where, "label"), where)
        if not labelled:
            continue
        yield Case(
            id=str(row.get("id", f"row {n}")),
            completion=answer,
            gold=gold.rpartition(cfg.gold_after)[2].strip() if cfg.gold_after else gold,
            label=label,
            category=str(row.get(cfg.category, "")),
            columns=row,
        )


def _text(row: Row, cfg: Config, where: str) -> str:
    if cfg.pieces and row.get(cfg.completion) is None and row.get(cfg.pieces) is not None:
        return "".join(str(text) * int(times) for text, times in row[cfg.pieces])
    found = _column(row, cfg.completion, where, "completion")
    if not isinstance(found, str):
        raise DataError(where, f"column '{cfg.completion}' holds {found!r}, not text", fix="mend or remove this row")
    return found


def _label(value: Any, where: str) -> tuple[bool, bool | None]:
    """(whether there is one, what it says)."""
    if value is None:
        return False, None
    wanted = set(cast("list[Any]", value)) if isinstance(value, list) else {value}
    if wanted == {0, 1}:
        return True, None
    if len(wanted) == 1 and (only := wanted.pop()) in (0, 1):
        return True, bool(only)
    raise DataError(where, f"its label is {value!r}", fix="use true, false, or a list of 0 and 1")


def _matches(row: Row, wanted: Mapping[str, Any]) -> bool:
    """Whether all columns have one of the values."""
    for name, value in wanted.items():
        values = cast("list[Any]", value) if isinstance(value, list) else [value]
        if row.get(name) not in values:
            return False
    return True


def _column(row: Row, name: str, where: str, key: str) -> Any:
    if name not in row:
        have = ", ".join(map(str, row)) or "(none)"
        raise DataError(where, f"has no column '{name}'", fix=f"set corpus.{key} to one of its columns: {have}")
    return row[name]
