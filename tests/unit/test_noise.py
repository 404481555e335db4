"""Which worked answers are noisy: by hand, and of traces whose noise is known; rows of files, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rewards import base, procedure
from rewards.pool import WorkerPool
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt, RewardOut, Verdict
from rlhf.data.care.noise import CLEAN, DYNAMIC, KINDS, RIGHT, STATIC, UNKNOWN, NoiseConfig, look
from rlhf.loops import care, settings, setup
from rlhf.loops.care import CareConfig
from rlhf.loops.noise import Answer, NoiseFilter
from rlhf.tasks import generated, tint
from rlhf.tasks.common import PromptSets
from rlhf.tasks.tint import Config

BOTH = NoiseConfig(leave_out=[STATIC, DYNAMIC])
LABELLED = NoiseConfig(leave_out=[STATIC, DYNAMIC], labels="trace_labels")
KINDS_OF_NOISE: list[dict[str, Any]] = [
    {"digit_noise": 0.05},
    {"digit_noise": 0.05, "noise_answer": True},
    {"line_noise": 0.1},
    {"dynamic_noise": 0.1},
    {"systematic_noise": 0.2},
    {"dynamic_noise": 0.05, "digit_noise": 0.02, "line_noise": 0.05, "contamination": 0.7},
]


def by_steps(answers: Sequence[Answer]) -> list[RewardOut]:
    cfg, tools = procedure.Config(column="steps", prefix=0.0), WorkerPool()
    return [procedure.score(base.answered(prompt, text), cfg, tools)[0] for prompt, text in answers]


def by_answer(answers: Sequence[Answer]) -> list[RewardOut]:
    """The same, and nothing about steps."""
    return [replace(out, breakdown={}) for out in by_steps(answers)]


def made(**keys: Any) -> PromptSets:
    sizes = {"train_size": 150, "held_out_size": 5, "operations": ["add", "sub", "mul", "sort"], "max_digits": 2}
    return tint.build(Config(**(sizes | keys)), seed=1)


def truth(prompt: Prompt, *, seen: bool) -> str:
    """What is wrong with a trace, by comparing it with the right one; `seen`, by its labels."""
    assert prompt.solution is not None
    if prompt.solution.splitlines()[-1] != f"{generated.MARK} {prompt.gold}":
        return DYNAMIC
    right = all(prompt.columns["trace_labels"]) if seen else prompt.solution == generated.reference(prompt)  # type: ignore[arg-type]
    return CLEAN if right else STATIC


def out(verdict: Verdict, value: float | None = 1.0, **parts: float | None) -> RewardOut:
    return RewardOut(value=value, verdict=verdict, reason="r", breakdown=parts, extracted="7")


@pytest.mark.parametrize(
    ("outcome", "labels", "kind", "step"),
    [
        (out(Verdict.CORRECT), None, RIGHT, -1),
        (out(Verdict.CORRECT, first_error=-1.0), None, CLEAN, -1),
        (out(Verdict.CORRECT, first_error=2.0), None, STATIC, 2),
        (out(Verdict.CORRECT, first_error=2.0), [1.0, 0.5], CLEAN, -1),
        (out(Verdict.CORRECT), [1.0, 0.49, 1.0], STATIC, 1),
        (out(Verdict.WRONG, 0.0), None, DYNAMIC, -1),
        (out(Verdict.WRONG, 0.0), [1.0, 1.0], DYNAMIC, -1),
        (out(Verdict.NO_ANSWER, 0.0, first_error=0.0), None, DYNAMIC, 0),
        (out(Verdict.UNPARSABLE, 0.0), None, DYNAMIC, -1),
        (out(Verdict.UNPARSABLE, None), None, UNKNOWN, -1),
        (out(Verdict.REFUSED, 0.5), None, UNKNOWN, -1),
        (out(Verdict.SKIPPED), [0.0], UNKNOWN, -1),
    ],
)
def test_what_is_wrong_follows_from_answer_and_steps(
    outcome: RewardOut, labels: list[float] | None, kind: str, step: int
) -> None:
    found = look(outcome, labels, where="w")
    assert (found.kind, found.step) == (kind, step)
    assert found.answer == ("" if kind == UNKNOWN else "7")


@pytest.mark.parametrize("verdict", [Verdict.TIMEOUT, Verdict.CRASH])
def test_a_reward_that_fails_decides_nothing(verdict: Verdict) -> None:
    with pytest.raises(DataError, match=r"^prompt 3: .* cannot be checked"):
        look(out(verdict, None), None, where="prompt 3")


@pytest.mark.parametrize("keys", KINDS_OF_NOISE, ids=str)
def test_what_is_found_in_traces_is_what_was_done_to_them(keys: dict[str, Any]) -> None:
    train = made(**keys).train_prompts
    for cfg, grade, seen in ((BOTH, by_steps, False), (LABELLED, by_answer, True)):
        found = NoiseFilter(cfg, grade, ()).solutions(train)
        true = {prompt.id: truth(prompt, seen=seen) for prompt in train}
        assert found.kinds == {kind: Counter(true.values())[kind] for kind in KINDS}
        assert {name: one.kind for name, one in found.left_out.items()} == {n: k for n, k in true.items() if k != CLEAN}
        assert all(one.step >= 0 for one in found.left_out.values() if one.kind == STATIC)
        dynamic = NoiseFilter(replace(cfg, leave_out=[DYNAMIC]), grade, ()).solutions(train)
        assert {*dynamic.left_out} == {name for name, kind in true.items() if kind == DYNAMIC}


def test_clean_traces_are_clean_and_held_out_ones_are_not_looked_at() -> None:
    assert NoiseFilter(BOTH, by_steps, ()).solutions(made().train_prompts).kinds[CLEAN] == 150


def test_a_prompt_loses_its_solution_and_stays(tmp_path: Path) -> None:
    task = made(dynamic_noise=0.1)
    found = care.cared(CareConfig(noise=NoiseConfig(leave_out=[DYNAMIC])), task, grade=by_steps)
    wrong = {prompt.id for prompt in task.train_prompts if truth(prompt, seen=False) == DYNAMIC}
    assert 0 < len(wrong) < 150 and {one.name for one in found.removed} == wrong
    assert [p.id for p in found.task.train()] == [p.id for p in task.train_prompts]
    assert {p.id for p in found.task.train() if p.solution is None} == wrong
    assert found.task.held_out() == task.held_out_prompts
    said = care.contents(found)
    assert said["left_out"] == 0 and said["noise"] == {**found.noise, "left_out": len(wrong)}
    assert sum(found.noise.values()) == 150 and found.noise[DYNAMIC] == len(wrong)
    care.write(tmp_path, "prompts", found.removed)
    first, *_ = map(json.loads, (tmp_path / "prompts.jsonl").read_text().splitlines())
    prompt = next(p for p in task.train_prompts if p.id == first["name"])
    assert first["noise"] == DYNAMIC and first["answer"] != prompt.gold and first["step"] >= 0


def test_rows_are_checked_by_their_gold_and_the_columns_of_their_question() -> None:
    known = made().train_prompts
    right, other = known[0], known[1]
    rows = [
        {"messages": right.chat, "completion": right.solution, "gold": right.gold},
        {"messages": right.chat, "completion": f"7\n#### {right.gold}", "gold": right.gold},
        {"messages": [*right.chat, {"role": "assistant", "content": other.solution}], "gold": right.gold},
        {"prompt": "1+1=", "completion": "#### 2", "gold": "2", "steps": []},
        {"prompt": "1+1=", "completion": [{"role": "assistant", "content": "#### 3"}], "gold": 2, "steps": []},
    ]
    found = NoiseFilter(BOTH, by_steps, known).rows(list(enumerate(rows, start=1)), where="f")
    assert {name: one.kind for name, one in found.left_out.items()} == {"2": STATIC, "3": DYNAMIC, "5": DYNAMIC}
    screen = care.cared(CareConfig(noise=BOTH), made(), grade=by_steps).screen
    assert [one.name for one in screen.noisy(list(enumerate(rows, start=1)), where="f")] == ["2", "3", "5"]
    assert care.Screen(CareConfig()).noisy([(1, {"no": "gold"})], where="f") == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "1+1=", "completion": "#### 2"}, r"^f, row 4: has no `gold`"),
        ({"prompt": "1+1=", "completions": ["#### 2"], "gold": "2"}, r"^f, row 4: holds no single answer"),
        ({"prompt": "1+1=", "completion": "#### 2", "gold": "2"}, r"^f: has no column 'trace_labels'"),
        ({"prompt": "1", "completion": "2", "gold": "2", "trace_labels": ["good"]}, r"holds \['good'\], no labels"),
    ],
)
def test_rows_that_cannot_be_checked_are_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        NoiseFilter(LABELLED, by_answer, ()).rows([(4, {"steps": [], **row})], where="f")


def test_steps_that_nobody_checks_are_no_secret() -> None:
    prompts = made().train_prompts
    with pytest.raises(DataError, match=r"^task: nobody can say of the steps of 150 right answers"):
        NoiseFilter(BOTH, by_answer, ()).solutions(prompts)
    found = NoiseFilter(NoiseConfig(leave_out=[DYNAMIC]), by_answer, ()).solutions(prompts)
    assert found.kinds[RIGHT] == 150 and not found.left_out


def test_what_would_leave_nothing_is_refused() -> None:
    prompt = Prompt(id="a", messages=(Message(role="user", content="?"),), gold="1", task="t", columns={"steps": ()})
    with pytest.raises(DataError, match=r"every worked answer is noisy: 0 clean, 0 right, 0 static, 1 dynamic"):
        NoiseFilter(BOTH, by_steps, ()).solutions([replace(prompt, solution="#### 2")])
    assert not NoiseFilter(BOTH, by_steps, ()).solutions([prompt]).left_out


def test_a_run_checks_its_solutions_by_its_first_reward(tmp_path: Path) -> None:
    tree = {
        "run": {"name": "x"},
        "model": {"init": "tiny"},
        "task": {"name": "sums", "train_size": 40, "held_out_size": 4, "noise": 0.3},
        "care": {"noise": {"leave_out": [STATIC, DYNAMIC], "labels": "trace_labels"}},
        "stages": ["sft"],
        "sft": {"loop": "offline"},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(tree), encoding="utf-8")
    prompts = setup.task(settings.read(tmp_path / "run.yaml").settings).train()
    assert len(prompts) == 40 and 0 < sum(p.solution is None for p in prompts) < 40
    assert all((p.solution is None) == (not all(p.columns["trace_labels"])) for p in prompts)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^care\.noise\.leave_out: the first reward, 'code', cannot check"):
        setup.task(settings.read(tmp_path / "run.yaml", ["rewards.code={}"]).settings)


def test_a_config_says_what_it_means() -> None:
    with pytest.raises(ConfigError, match=r"leave_out: 'dynamc' is not one"):
        NoiseConfig(leave_out=["dynamc"])
    with pytest.raises(ConfigError, match=r"labels: nothing is looked for"):
        NoiseConfig(labels="trace_labels")
