"""Labelled rows of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.lab.cases import Case
from rlhf.lab.corpora import file

ROWS: list[dict[str, Any]] = [
    {"id": "a", "completion": "7", "gold": "A: 7", "label": 1, "tier": "core", "kind": "bare"},
    {"id": "b", "completion": "\\boxed{8}", "gold": "A: 7", "label": [0], "tier": "core", "kind": "bare"},
    {"id": "c", "completion": "9", "gold": "A: 7", "label": [0, 1], "tier": "core", "kind": "whole"},
    {"id": "d", "completion": "9", "gold": "A: 7", "label": None, "tier": "core"},
    {"id": "e", "completion": "9", "gold": "A: 7", "label": False, "tier": "parse"},
    {"id": "f", "completion": None, "pieces": [["ab", 3], ["c", 1]], "gold": "A: 7", "label": False, "tier": "core"},
]


def cases(folder: Path, *rows: dict[str, Any], **keys: Any) -> list[Case]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return list(file.cases(file.Config(path=str(path), **keys), seed=0, canary=""))


def test_rows_are_filtered_boxed_and_labelled(tmp_path: Path) -> None:
    keys = {"where": {"tier": "core"}, "box": {"kind": ["bare"]}, "gold_after": "A:", "pieces": "pieces"}
    assert [(c.id, c.completion, c.gold, c.label) for c in cases(tmp_path, *ROWS, **keys)] == [
        ("a", "\\boxed{7}", "7", True),
        ("b", "\\boxed{8}", "7", False),
        ("c", "9", "7", None),
        ("f", "abababc", "7", False),
    ]
    assert [c.id for c in cases(tmp_path, *ROWS, without={"tier": ["core", "other"]})] == ["e"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"completion": "x", "gold": "7"}, "row 1: has no column 'label'"),
        ({"completion": 5, "gold": "7", "label": True}, "row 1: column 'completion' holds 5"),
        ({"completion": "x", "gold": "7", "label": 2}, "row 1: its label is 2"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        cases(tmp_path, row)


def test_a_file_is_needed() -> None:
    with pytest.raises(ConfigError, match="path: is required"):
        file.Config()
