"""Config files to objects and back: inheritance, overrides, slots, and messages that name path and fix."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from rlhf.core import config
from rlhf.core.component import Component
from rlhf.core.config import slot, slots
from rlhf.core.errors import ConfigError
from rlhf.losses import ce, policy
from rlhf.losses.correction import Correction


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    lr: float = 0.1
    betas: list[float] | None = None
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ConfigError("warmup", f"{self.warmup} is negative", fix="use 0 or more")


@dataclass(frozen=True, kw_only=True)
class Learner:
    optimizer: Optimizer = field(default_factory=Optimizer)
    fused: bool = False


@dataclass(frozen=True, kw_only=True)
class Top:
    name: str
    steps: int = 10
    stop: list[str] = field(default_factory=list[str])
    learner: Learner = field(default_factory=Learner)
    loss: Component = slot("rlhf.losses", "policy")
    rewards: dict[str, Component] = slots("rewards")


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def refused(tree: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.build(Top, {"name": "a"} | tree)
    return caught.value


# Building.


def test_values_are_converted_and_the_rest_is_default() -> None:
    tree = {"name": "a", "steps": "20", "learner": {"optimizer": {"lr": "1e-4", "betas": [0.9, 1]}}, "stop": ["#"]}
    optimizer = Optimizer(lr=1e-4, betas=[0.9, 1.0])
    expected = Top(name="a", steps=20, stop=["#"], learner=Learner(optimizer=optimizer))
    assert config.build(Top, tree) == expected
    assert config.build(Top, {"name": "a", "learner": None}) == Top(name="a")
    assert config.build(Optimizer, None) == Optimizer()


@pytest.mark.parametrize(
    ("tree", "where", "problem", "fix"),
    [
        ({"stepz": 1}, "stepz", "unknown key", "did you mean 'steps'?"),
        ({"learner": {"optimizer": {"lrr": 1}}}, "learner.optimizer.lrr", "unknown key", "did you mean 'lr'?"),
        ({"lr": 1}, "lr", "unknown key", "it belongs deeper: learner.optimizer.lr"),
        ({"loss": {"tis_cap": 1}}, "loss.tis_cap", "unknown key", "it belongs deeper: loss.correction.tis_cap"),
        ({"loss": {"name": "policy", "clip_lo": 1}}, "loss.clip_lo", "unknown key", "did you mean 'clip_low'?"),
        ({"rewards": {"math": {"wait": 2}}}, "rewards.math.wait", "unknown key", "did you mean 'weight'?"),
        ({"steps": "ten"}, "steps", "'ten'", "type int"),
        ({"steps": 1.5}, "steps", "'1.5'", "type int"),
        ({"steps": None}, "steps", "None", "type int"),
        ({"name": "???"}, "name", "Missing mandatory value", "type str"),
        ({"stop": "#"}, "stop", "list", "type list[str]"),
        ({"learner": {"optimizer": {"lr": True}}}, "learner.optimizer.lr", "'True'", "type float"),
        (
            {"learner": {"optimizer": {"betas": [0.9, "x"]}}},
            "learner.optimizer.betas",
            "'x'",
            "type list[float] | None",
        ),
        ({"learner": {"optimizer": {"warmup": -1}}}, "learner.optimizer.warmup", "-1 is negative", "use 0 or more"),
        ({"loss": {"name": "policy", "clip_low": 7}}, "loss.clip_low", "7.0 is out of range", "[0, 1]"),
        ({"learner": 3}, "learner", "expected keys and values, got 3", "indent"),
        ({"loss": ["ce"]}, "loss", "expected keys and values", "indent"),
        ({"rewards": ["math"]}, "rewards", "expected keys and values", "indent"),
        ({"loss": {"name": "polcy"}}, "loss.name", "there is no 'polcy' in rlhf.losses", "did you mean 'policy'?"),
        ({"loss": {"name": None}}, "loss.name", "is required", "one of: "),
        ({"loss": {"clip_low": -1}}, "loss.clip_low", "-1.0 is out of range", "[0, 1]"),
    ],
)
def test_a_message_names_the_path_the_problem_and_the_fix(
    tree: dict[str, Any], where: str, problem: str, fix: str
) -> None:
    error = refused(tree)
    assert error.where.split("[")[0] == where
    assert problem in error.problem and fix in error.fix


def test_a_required_value_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"run\.name: is required\n  fix: set run\.name=…"):
        config.build(Top, {}, "run")


# Slots.


def test_a_slot_holds_the_component_and_its_checked_config() -> None:
    default = config.build(Top, {"name": "a"}).loss
    assert (default.name, default.module, default.config) == ("policy", policy, policy.Config())
    built = config.build(Top, {"name": "a", "loss": {"name": "policy", "clip_high": 0.28}}).loss
    assert built.config == policy.Config(clip_high=0.28)
    assert config.build(Top, {"name": "a", "loss": "ce"}).loss == Component("ce", ce, ce.Config())
    assert config.build(Top, {"name": "a", "loss": None}).loss == default


def test_keys_without_a_name_speak_of_the_default_component() -> None:
    built = config.build(Top, {"name": "a", "loss": {"clip_high": 0.28}}).loss
    assert built == Component("policy", policy, policy.Config(clip_high=0.28))


def test_an_entry_of_slots_is_named_after_its_key_and_null_removes_it() -> None:
    tree = {"math": {"weight": 2}, "second": {"name": "math"}, "short": "math", "gone": None}
    built = config.build(Top, {"name": "a", "rewards": tree}).rewards
    assert {key: (c.name, c.config.weight) for key, c in built.items()} == {
        "math": ("math", 2.0),
        "second": ("math", 1.0),
        "short": ("math", 1.0),
    }


def test_a_dotted_name_is_a_users_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab_config").mkdir()
    module = (
        "from dataclasses import dataclass\n@dataclass(frozen=True, kw_only=True)\nclass Config:\n    tau: float = 2\n"
    )
    (tmp_path / "mylab_config" / "fancy.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    built = config.build(Top, {"name": "a", "loss": {"name": "mylab_config.fancy", "tau": 3}})
    assert (built.loss.module.__name__, built.loss.config.tau) == ("mylab_config.fancy", 3.0)
    assert config.to_tree(built)["loss"] == {"name": "mylab_config.fancy", "tau": 3.0}
    assert refused({"loss": {"name": "mylab_config.fancy", "tao": 1}}).where == "loss.tao"


def test_a_dotted_function_is_a_reward_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mylab_rewards.py").write_text("def brief(completions):\n    return [1.0] * len(completions)\n")
    monkeypatch.syspath_prepend(tmp_path)
    tree = {
        "name": "a",
        "rewards": {"brief": {"name": "mylab_rewards.brief", "weight": 0.5}, "s": "mylab_rewards.brief"},
    }
    built = config.build(Top, tree)
    assert {key: c.name for key, c in built.rewards.items()} == {"brief": "user_function", "s": "user_function"}
    assert (built.rewards["brief"].config.path, built.rewards["brief"].config.weight) == ("mylab_rewards.brief", 0.5)
    assert config.build(Top, config.to_tree(built)) == built


# Files.


def test_a_file_is_merged_over_its_bases_nearest_last(tmp_path: Path) -> None:
    write(
        tmp_path,
        root="name: ???\nsteps: 1\nlearner: {optimizer: {lr: 1e-3, warmup: 5}}\n",
        left="base: root.yaml\nsteps: 2\nstop: [a, b]\n",
        right="base: root.yaml\nlearner: {optimizer: {lr: 2e-3}}\n",
        recipe="base: [left.yaml, right.yaml]\nname: mine\nstop: [c]\n",
    )
    loaded = config.load(tmp_path / "recipe.yaml", ["learner.fused=true", "steps=7"])
    optimizer = {"lr": 2e-3, "warmup": 5}
    assert loaded.tree == {
        "name": "mine",
        "steps": 7,
        "stop": ["c"],
        "learner": {"optimizer": optimizer, "fused": True},
    }
    assert loaded.base_tree["stop"] == ["a", "b"] and loaded.base_tree["learner"] == {"optimizer": optimizer}
    assert [p.stem for p in loaded.bases] == ["root", "left", "right"]
    assert config.build(Top, loaded.tree).learner.optimizer.lr == 2e-3


def test_a_shared_parent_does_not_undo_what_the_first_base_changes(tmp_path: Path) -> None:
    write(
        tmp_path,
        root="name: a\nsteps: 1\n",
        left="base: root.yaml\nsteps: 2\n",
        right="base: root.yaml\nstop: [x]\n",
        recipe="base: [left.yaml, right.yaml]\n",
    )
    assert config.load(tmp_path / "recipe.yaml").tree["steps"] == 2


@pytest.mark.parametrize("override", ["loss.name=ce", "loss=ce", "loss={name: ce}"])
def test_another_component_on_the_command_line_starts_from_its_own_defaults(tmp_path: Path, override: str) -> None:
    write(tmp_path, base="name: a\nloss: {name: policy, clip_high: 0.28}\n", recipe="base: base.yaml\n")
    built = config.build(Top, config.load(tmp_path / "recipe.yaml", [override]).tree)
    assert (built.loss.name, built.loss.config) == ("ce", ce.Config())


def test_the_same_component_keeps_what_it_inherits(tmp_path: Path) -> None:
    write(
        tmp_path,
        base="name: a\nloss: {name: policy, clip_high: 0.28}\n",
        recipe="base: base.yaml\nloss: {name: policy, clip_low: 0.1}\n",
    )
    built = config.build(Top, config.load(tmp_path / "recipe.yaml", ["loss.correction.tis_cap=null"]).tree)
    assert built.loss.config == policy.Config(clip_high=0.28, clip_low=0.1, correction=Correction(tis_cap=None))


def test_the_name_of_a_run_is_a_label_and_chooses_nothing(tmp_path: Path) -> None:
    write(tmp_path, base="run: {name: a, folder: elsewhere}\n", recipe="base: base.yaml\nrun: {name: b}\n")
    assert config.load(tmp_path / "recipe.yaml").tree == {"run": {"name": "b", "folder": "elsewhere"}}


def test_an_override_removes_a_reward_and_adds_another(tmp_path: Path) -> None:
    write(tmp_path, recipe="name: a\nrewards: {math: {}, second: {name: math}}\n")
    loaded = config.load(tmp_path / "recipe.yaml", ["rewards.second=null", "rewards.third.name=math"])
    assert list(config.build(Top, loaded.tree).rewards) == ["math", "third"]


def test_references_between_keys_are_resolved(tmp_path: Path) -> None:
    write(tmp_path, recipe="name: a\nsteps: 12\nlearner: {optimizer: {warmup: '${steps}'}}\n")
    loaded = config.load(tmp_path / "recipe.yaml", ["steps=30"])
    assert config.build(Top, loaded.tree).learner.optimizer.warmup == 30


@pytest.mark.parametrize(
    ("files", "overrides", "message"),
    [
        ({}, [], r"recipe\.yaml: no such config file\n"),
        ({"recipe": "base: gone.yaml"}, [], r"gone\.yaml: no such config file, named as base by .*recipe\.yaml"),
        (
            {"recipe": "base: other.yaml", "other": "base: recipe.yaml"},
            [],
            r"circle: recipe.yaml -> other.yaml -> recipe",
        ),
        ({"recipe": "base: recipe.yaml"}, [], r"circle: recipe\.yaml -> recipe\.yaml"),
        ({"recipe": "a: [1"}, [], r"recipe\.yaml: is not valid YAML.*line"),
        ({"recipe": "- a\n- b"}, [], r"recipe\.yaml: is not a mapping"),
        ({"recipe": "steps: 1"}, ["steps"], r"steps: is not an override\n  fix: write key=value"),
        ({"recipe": "steps: 1"}, ["steps=[1"], r"recipe\.yaml: .*\n  fix: check the overrides"),
        ({"recipe": "steps: ${nowhere}"}, [], r"'nowhere' not found\n  fix: check the overrides and"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, files: dict[str, str], overrides: list[str], message: str) -> None:
    write(tmp_path, **files)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        config.load(tmp_path / "recipe.yaml", overrides)


def test_restated_keys_are_those_that_repeat_the_inherited_value(tmp_path: Path) -> None:
    write(
        tmp_path,
        base="steps: 5\nstop: [a]\nlearner: {optimizer: {lr: 0.1, warmup: 2}}\n",
        recipe="base: base.yaml\nsteps: 5\nstop: [a, b]\nlearner: {optimizer: {lr: 0.2, warmup: 2}}\nname: a\n",
    )
    assert config.restated(tmp_path / "recipe.yaml") == ["learner.optimizer.warmup", "steps"]
    assert config.restated(tmp_path / "base.yaml") == []


# Back to YAML.


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Mixed:
    colour: Colour
    path: Path
    table: dict[int, tuple[int, ...]]


def test_a_built_object_becomes_the_tree_it_can_be_built_from() -> None:
    tree = {
        "name": "a",
        "stop": ["#", "\n"],
        "learner": {"optimizer": {"lr": 1e-7, "betas": [0.9, 0.98]}},
        "loss": {"name": "policy", "dual_clip": 3.0},
        "rewards": {"m": {"name": "math", "weight": 0.25}},
    }
    built = config.build(Top, tree)
    back = config.to_tree(built)
    assert back["loss"]["dual_clip"] == 3.0 and back["loss"]["clip_low"] == 0.2, "defaults are filled in"
    assert list(back) == ["name", "steps", "stop", "learner", "loss", "rewards"]
    assert config.build(Top, back) == built


def test_the_yaml_text_reads_back_as_the_same_object(tmp_path: Path) -> None:
    built = config.build(Top, {"name": "naïve: #1", "stop": ["\n\n"], "learner": {"optimizer": {"lr": 1e-7}}})
    write(tmp_path, resolved=config.to_yaml(config.to_tree(built)))
    assert config.build(Top, config.load(tmp_path / "resolved.yaml").tree) == built


def test_plain_content_of_every_kind() -> None:
    mixed = Mixed(colour=Colour.RED, path=Path("runs/a"), table={1: (2, 3)})
    assert config.to_tree(mixed) == {"colour": "red", "path": "runs/a", "table": {"1": [2, 3]}}


def test_flatten() -> None:
    tree = {"a": {"b": {"c": 1}, "d": [1, 2]}, "e": None, "f": {}}
    assert config.flatten(tree) == {"a.b.c": 1, "a.d": [1, 2], "e": None, "f": {}}
