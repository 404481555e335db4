"""Worked answers of tasks, right and damaged: made as they are labelled, and graded so by the tasks' own rewards."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from shaping import NoTools

from rewards import base
from rlhf.core import component, config
from rlhf.core.errors import ConfigError
from rlhf.core.types import Message, Prompt, Verdict
from rlhf.lab.corpora import worked

TASKS = ("procbench", "tint", "hierarchy", "records", "tool_use", "counting", "symbolic")


def made(task: str, **keys: Any) -> list[Any]:
    cfg = config.build(worked.Config, {"task": {"name": task}, **keys})
    return list(worked.cases(cfg, seed=0, canary="/canary"))


@pytest.mark.parametrize("task", TASKS)
def test_the_rewards_of_tasks_grade_worked_answers_as_labelled(task: str) -> None:
    found = made(task, items=4, size=1000 if task == "tool_use" else 0)
    assert found == made(task, items=4, size=1000 if task == "tool_use" else 0)
    assert {"right", "slipped", "unmarked", "corrected", "question"} <= {case.category for case in found}
    label, keys = next(iter(component.resolve("rlhf.tasks", task, where="task").REWARDS.items()))
    reward = config.build_component("rewards", {"name": label} | keys, "reward")
    for case in found:
        asked = (Message(role="user", content=case.prompt),)
        prompt = Prompt(id="x", messages=asked, gold=case.gold, task=task, columns=case.columns)
        [out] = reward.module.score(base.answered(prompt, case.completion), reward.config, NoTools())
        assert case.label is None or (out.verdict is Verdict.CORRECT) == case.label, case


def test_hostile_texts_are_graded_as_answers_to_questions_of_the_task() -> None:
    found = made("tool_use", items=2, size=1000)
    kinds = Counter(case.category for case in found)
    assert kinds["hostile"] > 100 and {case.label for case in found if case.category == "hostile"} <= {False, None}
    assert all("tools" in case.columns for case in found)


def test_a_task_must_invent_its_questions_and_mark_its_answers() -> None:
    wrong = [({"task": {"name": "gsm8k"}}, "task"), ({"task": {"name": "procbench"}, "items": 1}, "items")]
    for keys, where in wrong:
        with pytest.raises(ConfigError) as caught:
            config.build(worked.Config, keys)
        assert caught.value.where == where
    unmarked = config.build(worked.Config, {"task": {"name": "procbench", "form": "json", "style": "words"}})
    with pytest.raises(ConfigError, match="####"):
        list(worked.cases(unmarked, seed=0, canary=""))
