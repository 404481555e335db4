"""BIG-bench's JSON tasks: prompts as the benchmark puts them, golds, shots, splits at three levels, broken files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewards.references import verify
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Prompt, Verdict
from rlhf.tasks import bigbench
from rlhf.tasks.bigbench import Config
from rlhf.tasks.common import PromptSets

SUMS = {
    "name": "sums",
    "task_prefix": "Add.\n",
    "keywords": ["arithmetic"],
    "examples": [{"input": f"{n} plus {n}", "target": [str(2 * n), f"it is {2 * n}"]} for n in range(30)],
}
CHOICES = {
    "name": "choices",
    "keywords": ["logic", "zero-shot"],
    "example_input_prefix": "\nSentence: ",
    "example_output_prefix": "\nVerdict: ",
    "examples": [{"input": f"s{n}", "target_scores": {"true": 1, "partly": 0.5, "false": 0}} for n in range(20)],
}


def written(folder: Path, **tasks: Any) -> list[str]:
    for name, content in tasks.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "task.json").write_text(json.dumps(content), encoding="utf-8")
    return [str(folder)]


def made(folder: Path, **keys: Any) -> PromptSets:
    return bigbench.build(Config(train=[str(folder)], **keys), seed=0)


def test_prompts_are_put_together_as_the_benchmark_does(tmp_path: Path) -> None:
    written(tmp_path, sums=SUMS, choices=CHOICES)
    sets = made(tmp_path)
    found = {p.id: p for p in (*sets.train_prompts, *sets.held_out_prompts)}
    assert found["bigbench-sums-3"].messages[0].content == "Add.\n\nQ: 2 plus 2\nA:"
    text = found["bigbench-choices-1"].messages[0].content
    head, _, end = text.partition("\n  choice: ")
    assert head == "Sentence: s0" and text.endswith("\nVerdict:")
    assert set(end.removesuffix("\nVerdict:").split("\n  choice: ")) == {"true", "partly", "false"}
    orders = [p.messages[0].content.find("true") < p.messages[0].content.find("false") for p in found.values()]
    assert True in orders and False in orders, "the best choice is not always at the same place"


def test_golds_accept_their_references_and_score_choices(tmp_path: Path) -> None:
    written(tmp_path, sums=SUMS, choices=CHOICES)
    sets = made(tmp_path)
    for prompt in (*sets.train_prompts, *sets.held_out_prompts):
        assert verify(bigbench.reference(prompt), prompt.gold).verdict is Verdict.CORRECT
    sums = next(p for p in sets.train_prompts if p.columns["task_name"] == "sums")
    assert verify(f"It is {sums.solution}.", sums.gold).value == 1.0
    choice = next(p for p in sets.train_prompts if p.columns["task_name"] == "choices")
    assert [verify(said, choice.gold).value for said in ("True", "partly", "false", "else")] == [1, 0.5, 0, 0]


def test_shots_are_other_examples_of_the_task(tmp_path: Path) -> None:
    written(tmp_path, sums=SUMS)
    for prompt in made(tmp_path, shots=2).train_prompts[:5]:
        text = prompt.messages[0].content
        assert text.count("Q: ") == 3 and text.count(str(prompt.columns["input"]) + "\n") == 1


def test_subtasks_are_named_by_their_folders(tmp_path: Path) -> None:
    for name in ("one/task.json", "two/deep/task.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(json.dumps(SUMS), encoding="utf-8")
    sets = made(tmp_path)
    prompts = (*sets.train_prompts, *sets.held_out_prompts)
    assert {p.columns["task_name"] for p in prompts} == {"one", "two/deep"}
    assert len({p.id for p in prompts}) == len(prompts)
    alone = bigbench.build(Config(train=[str(tmp_path / "one/task.json")]), seed=0)
    assert alone.train_prompts[0].columns["task_name"] == "one"


def test_choices_may_be_left_out(tmp_path: Path) -> None:
    written(tmp_path, one=CHOICES | {"append_choices_to_input": False}, two=CHOICES)
    sets = made(tmp_path, choices=False)
    assert all("choice:" not in p.messages[0].content for p in sets.train_prompts)


def words(prompt: Prompt) -> tuple[str, ...]:
    keywords: Any = prompt.columns["keywords"]
    return tuple(keywords)


@pytest.mark.parametrize(("level", "held"), [("instance", None), ("task", 1), ("category", None)])
def test_what_is_held_out_is_apart_at_its_level(level: str, held: int | None, tmp_path: Path) -> None:
    written(tmp_path, a=SUMS, b=CHOICES, c=SUMS | {"keywords": ["words"]})
    sets = made(tmp_path, hold_out=level)
    sides = (sets.train_prompts, sets.held_out_prompts)
    names = [{p.columns["task_name"] for p in side} for side in sides]
    keywords = [{k for p in side for k in words(p)} for side in sides]
    questions = [{(p.columns["task_name"], p.columns["input"]) for p in side} for side in sides]
    assert not questions[0] & questions[1] and all(questions)
    if level == "task":
        assert not names[0] & names[1] and len(names[1]) == held
    if level == "category":
        assert not keywords[0] & keywords[1]
    assert made(tmp_path, hold_out=level) == sets


def test_large_tasks_are_capped_and_named_tests_are_held_out_as_they_are(tmp_path: Path) -> None:
    written(tmp_path / "train", sums=SUMS)
    written(tmp_path / "test", choices=CHOICES)
    cfg = Config(train=[str(tmp_path / "train")], test=[str(tmp_path / "test/choices/task.json")], max_per_task=7)
    sets = bigbench.build(cfg, seed=0)
    assert (len(sets.train_prompts), len(sets.held_out_prompts)) == (7, 7)
    assert sets != bigbench.build(cfg, seed=1)
    assert [Path(path).parent.name for path in bigbench.sources(cfg)] == ["sums", "choices"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "not an object"),
        ({"examples": []}, "not a list of objects"),
        ({"examples": [{"input": "a"}]}, "neither a target"),
        ({"examples": [{"input": 3, "target": "a"}]}, "not text"),
        ({"examples": [{"input": "a", "target_scores": {"b": 0}}]}, "above 0"),
    ],
)
def test_a_broken_file_is_named(content: Any, problem: str, tmp_path: Path) -> None:
    written(tmp_path, broken=content)
    with pytest.raises(DataError, match=rf"(?s)broken/task\.json.*{problem}"):
        made(tmp_path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no task file"):
        bigbench.build(Config(), seed=0)
    with pytest.raises(DataError, match=r"task\.train.*no such file"):
        bigbench.build(Config(train=[str(tmp_path / "none.json")]), seed=0)
    with pytest.raises(DataError, match=r"there is no task\.json"):
        made(tmp_path)
    (tmp_path / "task.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        made(tmp_path)
    for wrong in ({"hold_out": "word"}, {"held_out_share": 1.0}, {"shots": -1}, {"max_per_task": -1}):
        with pytest.raises(ConfigError):
            Config(**wrong)  # type: ignore[arg-type]
