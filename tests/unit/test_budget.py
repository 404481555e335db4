"""Giving up: only what is forecast below, late enough and settled; the decision follows from the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.core.errors import ConfigError
from rlhf.core.run_folder import RunFolder, append_lines
from rlhf.loops.budget import BudgetConfig, Giver, ended_with

KEY = "val-core/sums/sampled_accuracy/mean"


def logged(path: Path, values: list[float], *, stage: str = "rl", summary: dict[str, Any] | None = None) -> RunFolder:
    """A run whose last stage was evaluated every ten steps."""
    path.mkdir(parents=True)
    folder = RunFolder(path)
    rows: list[dict[str, Any]] = [{"step": 5, "stage": "sft", KEY: 0.99}]
    rows += [{"step": 10 * (n + 1), "stage": stage, KEY: value} for n, value in enumerate(values)]
    append_lines(folder.metrics, [*rows, {"step": 999, "stage": stage, "loss": 1.0}])
    if summary is not None:
        folder.summary.write_text(json.dumps(summary))
    return folder


def why(folder: RunFolder, *, done: float = 0.5, **settings: Any) -> str:
    giver = Giver(cfg=BudgetConfig(**settings), folder=folder, stage="rl", task="sums")
    return giver.why(last=200, done=done)


FLAT = [0.2, 0.3, 0.35, 0.37, 0.38, 0.385, 0.387, 0.388]


def test_what_has_levelled_off_below_is_given_up_and_nothing_else(tmp_path: Path) -> None:
    folder = logged(tmp_path / "run", FLAT)
    assert why(folder, below=0.8).startswith(f"{KEY} would be 0.") and why(folder, below=0.8).endswith("below 0.800")
    assert why(folder, below=0.3) == why(folder, below=0.8, done=0.3) == why(folder) == ""
    assert why(folder, below=0.8, margin=0.5) == why(folder, below=0.8, settled=1e-6) == ""
    assert why(folder, below=0.8, metric="nothing") == ""
    still = logged(tmp_path / "still rising", [0.1, 0.2, 0.29, 0.38, 0.46, 0.53])
    assert why(still, below=0.8) == ""
    assert why(logged(tmp_path / "young", FLAT[:4]), below=0.8) == ""


def test_another_run_says_what_is_too_little_once_it_is_finished(tmp_path: Path) -> None:
    folder, other = logged(tmp_path / "run", FLAT), tmp_path / "other"
    assert why(folder, against=str(other)) == ""
    done = logged(other, [0.1, 0.8])
    assert ended_with(other, KEY) is None
    done.summary.write_text(json.dumps({"stopped": ""}))
    assert ended_with(other, KEY) == 0.8 and why(folder, against=str(other)).endswith("below 0.800")
    done.summary.write_text(json.dumps({"stopped": "it was hopeless"}))
    assert ended_with(other, KEY) is None


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("below", {"below": 0.5, "against": "runs/x"}),
        ("after", {"after": 1.0}),
        ("margin", {"margin": -0.1}),
        ("settled", {"settled": 0.0}),
    ],
)
def test_impossible_settings_are_refused(field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}: .*\n  fix: "):
        BudgetConfig(**settings)
