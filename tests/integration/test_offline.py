"""The offline loop: supervised training lowers its loss, on the task's solutions and on a file of one's own."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from commands import Shell, reproducible, rows, tree, write_config


def test_supervised_training_lowers_the_loss(learnt: Path) -> None:
    losses = [row["train/ce_loss"] for row in rows(learnt / "metrics.jsonl") if row["stage"] == "sft"]
    assert len(losses) == 22
    assert losses[0] > 4, "near the log of the vocabulary, 4.6"
    assert statistics.mean(losses[-3:]) < 0.5


def write_examples(path: Path, form: str) -> None:
    """Thirty sums with their solutions, as `prompt` or as `messages`."""
    lines: list[str] = []
    for n in range(30):
        question = f"{n % 10}+{n // 10}="
        asked = {"prompt": question} if form == "prompt" else {"messages": [{"role": "user", "content": question}]}
        lines.append(json.dumps({**asked, "completion": f"#### {n % 10 + n // 10}"}) + "\n")
    path.write_text("".join(lines))


def test_a_file_of_examples_is_learnt_in_either_form(shell: Shell, tmp_path: Path) -> None:
    content = tree() | {"stages": ["sft"]}
    content["sft"] |= {"data": "mine.jsonl", "batch_size": 16, "steps": 12}
    config = write_config(tmp_path, content)
    for form in ("prompt", "messages"):
        write_examples(tmp_path / "mine.jsonl", form)
        shell.run("train", config, f"run.name={form}", cwd=tmp_path).ok()
    found = [reproducible(tmp_path / "runs" / form / "metrics.jsonl") for form in ("prompt", "messages")]
    assert found[0] == found[1]
    losses = [row["train/ce_loss"] for row in found[0] if row["step"]]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "1+1=", "answer": "2"},
        {"prompt": 2, "completion": "2"},
        {"messages": "1+1=", "completion": "2"},
        {"messages": [{"content": "1+1="}], "completion": "2"},
        {"prompt": "1+1=", "completion": None},
    ],
)
def test_a_row_that_cannot_be_learnt_from_is_named(row: dict[str, object], shell: Shell, tmp_path: Path) -> None:
    write_examples(tmp_path / "mine.jsonl", "prompt")
    with (tmp_path / "mine.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    config = write_config(tmp_path, tree())
    done = shell.run("train", config, "sft.data=mine.jsonl", cwd=tmp_path)
    done.refused("mine.jsonl, row 31: cannot be learnt from", ", ".join(row), "`completion`")
