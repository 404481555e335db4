"""What a run leaves out of its own data: prompts and rows that stand in an evaluation set, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf.core.errors import DataError
from rlhf.core.types import Message, Prompt
from rlhf.data.care.duplicates import DuplicatesConfig
from rlhf.loops import care
from rlhf.loops.care import CareConfig, Screen
from rlhf.tasks.common import PromptSets

QUESTION = "A baker has 12 trays of 8 rolls each and sells 70 of them. How many rolls are left over?"
OTHER = "There are 30 children in a bus. At the first stop 4 get off. How many are there now in all?"


def prompt(name: str, text: str, *, solution: str | None = None) -> Prompt:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content=text))
    return Prompt(id=name, messages=messages, gold="1", task="word problems", solution=solution)


TASK = PromptSets(
    train_prompts=(
        prompt("a", "1+1?"),
        prompt("b", QUESTION.upper()),
        prompt("c", "?", solution=f"Like this: {OTHER}"),
    ),
    held_out_prompts=(prompt("x", QUESTION),),
)


def contents(task: PromptSets) -> dict[str, Any]:
    return care.contents(care.cared(CareConfig(), task))


@pytest.fixture
def test_set(tmp_path: Path) -> str:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": OTHER}) + "\n", encoding="utf-8")
    return str(path)


def test_by_default_nothing_is_left_out() -> None:
    found = care.cared(CareConfig(), TASK)
    assert found.task is TASK and found.removed == ()
    assert found.screen.rows([(1, {"q": QUESTION})], where="f") == []


def test_prompts_and_rows_are_compared_with_held_out_prompts_and_files(test_set: str, tmp_path: Path) -> None:
    cfg = CareConfig(held_out=True, against=[test_set])
    found = care.cared(cfg, TASK)
    assert [p.id for p in found.task.train()] == ["a"] and found.task.held_out() == TASK.held_out()
    assert [(one.name, one.match.source, one.match.name) for one in found.removed] == [
        ("b", "held-out prompts", "x"),
        ("c", test_set, "row 1"),
    ]
    rows = [(1, {"q": "1+1?"}), (2, {"messages": [{"role": "user", "content": QUESTION}]})]
    assert [one.name for one in found.screen.rows(rows, where="f")] == ["2"]
    assert [one.name for one in care.cared(replace(cfg, held_out=False), TASK).removed] == ["c"]
    care.write(tmp_path / "removed", "prompts", found.removed)
    [first, _] = [json.loads(line) for line in (tmp_path / "removed" / "prompts.jsonl").read_text().splitlines()]
    assert first["name"] == "b" and first["share"] == 1.0 and first["words"].startswith("a baker has 12")


def test_questions_are_trained_on_once(tmp_path: Path) -> None:
    first, *rest = TASK.train_prompts
    task = replace(TASK, train_prompts=(first, *rest, replace(first, id="z", solution="another one")))
    found = care.cared(CareConfig(duplicates=DuplicatesConfig(find="exact")), task)
    assert [p.id for p in found.task.train()] == ["a", "b", "c"]
    care.write(tmp_path / "removed", "prompts", found.removed)
    assert json.loads((tmp_path / "removed" / "prompts.jsonl").read_text()) == {"name": "z", "repeats": "a"}
    rows = [(1, {"q": "1", "a": "2"}), (2, {"q": "1", "a": "3"}), (3, {"q": "1", "a": "2"})]
    assert [one.name for one in found.screen.rows(rows, where="f")] == ["3"]


def test_a_run_that_would_have_nothing_left_is_refused(test_set: str) -> None:
    only = PromptSets(train_prompts=TASK.train_prompts[1:2], held_out_prompts=TASK.held_out_prompts)
    with pytest.raises(DataError, match=r"^task: every row of it .*\n  fix: .*care\.against"):
        care.cared(CareConfig(held_out=True), only)
    with pytest.raises(DataError, match=r"^f: every row of it"):
        Screen(CareConfig(against=[test_set])).rows([(1, {"q": OTHER})], where="f")


def test_what_is_said_of_prompts_changes_with_anything_in_them() -> None:
    said = contents(TASK)
    assert said["train"] == {"word problems": {"prompts": 3, "content": said["train"]["word problems"]["content"]}}
    first, *rest = TASK.train_prompts
    for other in (replace(first, gold="2"), replace(first, columns={"n": 1}), replace(first, solution="")):
        changed = contents(replace(TASK, train_prompts=(other, *rest)))
        assert changed["train"] != said["train"] and changed["held_out"] == said["held_out"]
    assert contents(replace(TASK, train_prompts=(*rest, first)))["train"] != said["train"]
