"""Several tasks in one: whose prompts they are, how they mingle, and what a wrong mixture is told."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewards import math
from rlhf.core import config
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Prompt
from rlhf.data import sources
from rlhf.loops import offline, settings, warm
from rlhf.tasks import common, gsm8k, mix, sums

SMALL = {"min_terms": 2, "max_terms": 3, "train_size": 40, "held_out_size": 6}
PARTS: dict[str, Any] = {
    "sums": SMALL,
    "differences": SMALL | {"name": "sums", "operation": "subtract", "train_size": 24, "noise": 0.5},
}


def mixture(parts: dict[str, Any] = PARTS, **others: Any) -> mix.Config:
    return config.build(mix.Config, {"parts": parts, **others}, "task")


def made(cfg: mix.Config | None = None, *, seed: int = 0) -> common.PromptSets:
    return mix.build(cfg or mixture(), seed=seed, rows=sources.rows)


def own(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts as their parts made them."""
    found = [p.own for p in prompts if isinstance(p, mix.PartPrompt)]
    assert len(found) == len(prompts)
    return found


def of(prompts: Sequence[Prompt], task: str) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.task == task]


def experiment(folder: Path, task: dict[str, Any], **others: Any) -> settings.Experiment:
    stages = {"stages": ["sft", "rl"], "sft": {"loop": "offline"}, "rl": {"loop": "online"}}
    content = {"run": {"name": "x"}, "model": {"init": "tiny"}, "task": task, **stages, **others}
    path = folder / "config.yaml"
    path.write_text(json.dumps(content))
    return settings.read(path)


def test_a_part_poses_what_it_poses_alone_under_its_label() -> None:
    both = made(seed=4)
    for label, cfg in (("sums", sums.Config(**SMALL)), ("differences", mixture().parts["differences"].config)):
        alone = sums.build(cfg, seed=4)
        assert own(of(both.held_out(), label)) == list(alone.held_out()), "in the part's order"
        assert sorted(p.id for p in own(of(both.train(), label))) == sorted(p.id for p in alone.train())
        for prompt in of(both.train(), label):
            assert isinstance(prompt, mix.PartPrompt) and prompt.own.task == "sums"
            assert (prompt.messages, prompt.gold, prompt.solution, prompt.columns) == (
                prompt.own.messages,
                prompt.own.gold,
                prompt.own.solution,
                prompt.own.columns,
            )


def test_held_out_prompts_come_part_by_part_the_primary_first() -> None:
    assert [p.task for p in made().held_out()] == ["sums"] * 6 + ["differences"] * 6


def test_ids_are_unique_and_prefixed_only_where_they_must_be() -> None:
    both = made()
    ids = [p.id for p in (*both.train(), *both.held_out())]
    assert len(set(ids)) == len(ids) == 76
    assert {i.partition("-")[0] for i in ids} == {"sums", "differences/sums"}
    assert "sums-train-1" in ids and "differences/sums-train-1" in ids
    three = made(mixture({**PARTS, "third": SMALL | {"name": "sums"}}))
    assert len({p.id for p in three.train()}) == 104


def test_training_prompts_are_mingled_by_the_seed() -> None:
    first, again, other = made(), made(), made(seed=1)
    assert first == again
    assert [p.id for p in first.train()] != [p.id for p in other.train()]
    early = Counter(p.task for p in first.train()[:32])
    assert min(early.values()) >= 6, "neither part comes first"


def test_weights_are_shares_and_the_scarcer_part_is_used_whole() -> None:
    def sizes(**weights: float) -> Counter[str]:
        task = made(mixture(weights=weights))
        assert len(task.held_out()) == 12, "weights are about training"
        return Counter(p.task for p in task.train())

    assert sizes() == {"sums": 40, "differences": 24}
    assert sizes(sums=1, differences=1) == {"sums": 24, "differences": 24}
    assert sizes(sums=0.75, differences=0.25) == {"sums": 40, "differences": 13}
    assert sizes(sums=1, differences=1000) == {"sums": 1, "differences": 24}


def test_a_smaller_share_keeps_what_a_larger_one_kept() -> None:
    kept = [
        {p.id for p in of(made(mixture(weights={"sums": 1, "differences": share})).train(), "differences")}
        for share in (0.1, 0.3)
    ]
    assert len(kept[0]) == 4 and kept[0] < kept[1]


def test_references_are_those_of_the_parts_and_their_own_verifier_accepts_them() -> None:
    cfg = mixture()
    both = made(cfg)
    noisy = [p for p in of(both.train(), "differences") if p.columns["wrong_steps"]]
    assert noisy and all(mix.reference(p) != p.solution for p in noisy)
    spec = config.build(math.Config, mix.default_rewards(cfg)["math"])
    prompts = [*both.train(), *both.held_out()]
    report = common.validate(prompts, lambda text, gold: math.verify(text, gold, spec=spec), reference=mix.reference)
    assert report.ok and report.checked == 76
    assert any(prompt.gold.startswith("-") for prompt in prompts)


def test_sources_are_those_of_all_parts_each_once() -> None:
    parts = {
        label: {"name": "gsm8k", "train": "a.jsonl", "test": test} for label, test in (("x", "b.jsonl"), ("y", None))
    }
    assert mix.sources(mixture({**parts, **PARTS})) == ("a.jsonl", "b.jsonl")


def test_rewards_default_to_what_the_parts_agree_on(tmp_path: Path) -> None:
    found = experiment(tmp_path, {"name": "mix", "parts": PARTS})
    assert config.to_tree(found.settings.rewards)["math"]["markers"] == ["####"]
    differing = {"name": "mix", "parts": {"sums": {}, "words": {"name": "gsm8k"}}}
    assert sums.REWARDS != gsm8k.REWARDS
    with pytest.raises(ConfigError, match=r"rewards: .* for sums, .* for words\n  fix: set `rewards`"):
        experiment(tmp_path, differing)
    assert list(experiment(tmp_path, differing, rewards={"math": {}}).settings.rewards) == ["math"]


def test_a_resolved_mixture_reads_back_as_the_same(tmp_path: Path) -> None:
    resolved = experiment(tmp_path, {"name": "mix", "parts": PARTS, "weights": {"sums": 2, "differences": 1}}).to_yaml()
    (tmp_path / "again.yaml").write_text(resolved)
    assert settings.read(tmp_path / "again.yaml").to_yaml() == resolved


@pytest.mark.parametrize(
    ("content", "where", "problem"),
    [
        ({"parts": {}}, "task.parts", "there are none"),
        ({"parts": {"a/b": {"name": "sums"}}}, "task.parts.a/b", "cannot be a label"),
        ({"parts": {"inner": {"name": "mix", "parts": {"sums": {}}}}}, "task.parts.inner", "is a mix itself"),
        ({"parts": {"sum": {}}}, "task.parts.sum.name", "there is no 'sum'"),
        ({"parts": {"sums": {"noise": 2}}}, "task.parts.sums.noise", "is not a probability"),
        ({"weights": {"sums": 1, "difference": 1}}, "task.weights.difference", "there is no such part"),
        ({"weights": {"sums": 1}}, "task.weights.differences", "has no share"),
        ({"weights": {"sums": 1, "differences": 0}}, "task.weights.differences", "has no share"),
        ({"weights": {"sums": float("inf"), "differences": 1}}, "task.weights.sums", "has no share"),
    ],
)
def test_an_impossible_mixture_names_its_key(content: dict[str, Any], where: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mixture(**content)
    assert caught.value.where == where and problem in caught.value.problem and caught.value.fix


def test_a_part_that_cannot_be_built_names_its_keys_where_they_stand() -> None:
    small = {"sums": SMALL | {"max_terms": 2, "max_operand": 1}}
    with pytest.raises(ConfigError, match=r"^task\.parts\.sums\.held_out_size: .*\n.* task\.parts\.sums\.max_operand"):
        made(mixture(small))
    with pytest.raises(DataError, match=r"^task\.parts\.words\.train .*task\.txt"):
        made(mixture({"words": {"name": "gsm8k", "train": "task.txt"}}))


def user_task(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a task of one's own, `lab.mine`: running sums with something changed."""
    home = folder / "lab"
    home.mkdir()
    (home / "mine.py").write_text(f"from rlhf.tasks import sums\nfrom rlhf.tasks.sums import *\n{code}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    return home / "mine.py"


def test_a_part_without_held_out_prompts_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
def build(cfg, *, seed, rows):
    return PromptSets(train_prompts=sums.build(cfg, seed=seed).train(), held_out_prompts=())"""
    user_task(tmp_path, code, monkeypatch)
    with pytest.raises(DataError, match=r"^task\.parts\.blind: there are no held-out prompts"):
        made(mixture({"blind": {"name": "lab.mine"}}))


def test_tasks_of_a_stage_choose_among_solutions_of_the_task() -> None:
    both = made()
    assert {e.prompt.task for e in offline.given(offline.Config(tasks=["differences"]), both)} == {"differences"}
    assert len(offline.given(offline.Config(), both)) == 64
    with pytest.raises(ConfigError) as caught:
        offline.Config(data="mine.jsonl", tasks=["sums"])
    assert caught.value.where == "tasks"


def test_the_code_of_a_part_is_code_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached stage must not be taken for one whose part has changed since."""
    file = user_task(tmp_path, "", monkeypatch)
    found = experiment(tmp_path, {"name": "mix", "parts": {"mine": {"name": "lab.mine"}}})
    environment = dict.fromkeys(warm.ENVIRONMENT)
    before = warm.key(found, environment)
    assert warm.key(found, environment) == before
    file.write_text(file.read_text() + "# changed\n")
    assert warm.key(found, environment) != before
