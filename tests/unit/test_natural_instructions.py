"""Natural Instructions: both versions of its files, what a prompt tells, golds by ROUGE-L, and a split by tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewards.references import Config as Graded
from rewards.references import verify
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Verdict
from rlhf.tasks import natural_instructions
from rlhf.tasks.common import PromptSets
from rlhf.tasks.natural_instructions import Config

SECOND = {
    "Definition": ["Name the colour of the thing."],
    "Categories": ["Question Answering"],
    "Positive Examples": [{"input": "snow", "output": "white", "explanation": "Snow is white."}],
    "Negative Examples": [{"input": "coal", "output": "a rock", "explanation": "That is no colour."}],
    "Instances": [{"id": f"t-{n}", "input": f"thing {n}", "output": ["green", "light green"]} for n in range(6)],
}
FIRST = {
    "Title": "Naming colours",
    "Prompt": "What colour?",
    "Definition": "Name the colour.",
    "Things to Avoid": "-",
    "Emphasis & Caution": "One word.",
    "Examples": {
        "Positive Examples": [{"input": "snow", "output": "white", "reason": "It is.", "suggestion": "-"}],
        "Negative Examples": "-",
    },
    "Instances": [{"input": "grass", "output": ["green"]}],
}


def made(folder: Path, *, files: dict[str, Any], **keys: Any) -> PromptSets:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return natural_instructions.build(Config(train=[str(folder)], **keys), seed=0)


def test_a_prompt_tells_the_definition_examples_and_the_input(tmp_path: Path) -> None:
    sets = made(tmp_path, files={"task1": SECOND}, hold_out="instance", negatives=1, explanations=True)
    assert sets.train_prompts[0].messages[0].content == (
        "Definition: Name the colour of the thing.\n\n"
        "Positive Example 1 -\nInput: snow\nOutput: white\nExplanation: Snow is white.\n\n"
        "Negative Example 1 -\nInput: coal\nOutput: a rock\nExplanation: That is no colour.\n\n"
        f"Now complete the following example -\nInput: {sets.train_prompts[0].columns['input']}\nOutput:"
    )


def test_the_first_version_is_read_and_what_it_leaves_out_is_skipped(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"fields": [*natural_instructions.FIELDS], "negatives": 2, "explanations": True}
    sets = made(tmp_path, files={"old": FIRST, "new": SECOND}, **keys)
    [prompt] = [p for p in (*sets.train_prompts, *sets.held_out_prompts) if p.columns["task_name"] == "old"]
    assert prompt.messages[0].content == (
        "Title: Naming colours\n\nDefinition: Name the colour.\n\nPrompt: What colour?\n\n"
        "Emphasis & Caution: One word.\n\n"
        "Positive Example 1 -\nInput: snow\nOutput: white\nExplanation: It is.\n\n"
        "Now complete the following example -\nInput: grass\nOutput:"
    )


def test_any_output_is_right_and_others_are_worth_their_overlap(tmp_path: Path) -> None:
    sets = made(tmp_path, files={"task1": SECOND}, hold_out="instance")
    cfg = Graded(**natural_instructions.REWARDS["references"])
    for prompt in (*sets.train_prompts, *sets.held_out_prompts):
        assert verify(natural_instructions.reference(prompt), prompt.gold, cfg=cfg).verdict is Verdict.CORRECT
    gold = sets.train_prompts[0].gold
    assert verify("Light green.", gold, cfg=cfg).verdict is Verdict.CORRECT
    assert verify("dark green", gold, cfg=cfg).value == pytest.approx(2 / 3)


def test_whole_tasks_are_held_out_by_default(tmp_path: Path) -> None:
    files = {f"task{n}": SECOND for n in range(5)}
    sets = made(tmp_path, files=files, held_out_share=0.4)
    train, held = ({p.columns["task_name"] for p in side} for side in (sets.train_prompts, sets.held_out_prompts))
    assert (len(train), len(held)) == (3, 2) and not train & held
    assert len(natural_instructions.sources(Config(train=[str(tmp_path)]))) == 5


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"Instances": "none"}, "not a list of objects"),
        ({"Instances": [{"input": "a", "output": [""]}]}, "has the output"),
        ({"Instances": [{"output": ["a"]}]}, "not text"),
        ({"Definition": "-", "Positive Examples": []}, "has none of"),
    ],
)
def test_a_broken_file_is_named(changed: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"(?s)broken\.json.*{problem}"):
        made(tmp_path, files={"broken": SECOND | changed})


def test_impossible_settings_name_their_field() -> None:
    for wrong, where in (({"fields": ["Body"]}, "fields"), ({"negatives": -1}, "negatives"), ({"shots": -1}, "shots")):
        with pytest.raises(ConfigError) as caught:
            Config(**wrong)  # type: ignore[arg-type]
        assert caught.value.where == where
