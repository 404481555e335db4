"""The cosine length reward: the curve by hand, the limit, what the verifier says and cannot say, wrong settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rewards import cosine_length
from rewards.base import RewardConfig
from rewards.cosine_length import Config, score, value
from rewards.rubric import RubricConfig, score_groups
from rlhf.core import config
from rlhf.core.component import Component
from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict

PAPER = Config(max_length=100)


@dataclass(frozen=True)
class NoTools:
    """No reward here asks for a worker."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        raise AssertionError("not expected")


def answer(text: str, length: int, *, stop: StopReason = StopReason.EOS, index: int = 0) -> Trajectory:
    return Trajectory(
        id=f"0-0-p-{index}", prompt_id="p", index=index, prompt_tokens=(1,) * 7, tokens=(2,) * length,
        logprobs=(-0.5,) * length, text=text, stop=stop, policy_version=0, seed=index,
    )  # fmt: skip


def group(*answers: Trajectory, gold: str = "2") -> Group:
    prompt = Prompt(id="p", messages=(Message(role="user", content="1+1="),), gold=gold, task="sums")
    return Group(prompt=prompt, trajectories=answers)


def graded(answered: Trajectory, cfg: Config = PAPER, *, gold: str = "2") -> RewardOut:
    [out] = score(group(answered, gold=gold), cfg, NoTools())
    return out


def verifier(*outs: RewardOut, weight: float = 1.0) -> Component:
    module = ModuleType("given")

    def give(group: Group, cfg: Any, tools: Any) -> list[RewardOut]:
        return list(outs)

    vars(module).update(Config=RewardConfig, score=give)
    return Component("given", module, RewardConfig(weight=weight))


@pytest.mark.parametrize(
    ("length", "right", "wrong"),
    [
        (0, 2.0, -10.0),
        (25, 1 + (1 + math.sqrt(0.5)) / 2, -10 * (1 + math.sqrt(0.5)) / 2),
        (50, 1.5, -5.0),
        (75, 1 + (1 - math.sqrt(0.5)) / 2, -10 * (1 - math.sqrt(0.5)) / 2),
        (100, 1.0, 0.0),
    ],
)
def test_the_curve_at_its_ends_and_between(length: int, right: float, wrong: float) -> None:
    assert value(length, correct=True, exceeded=False, cfg=PAPER) == pytest.approx(right)
    assert value(length, correct=False, exceeded=False, cfg=PAPER) == pytest.approx(wrong)


def test_right_falls_and_wrong_rises_with_length_and_no_wrong_answer_beats_a_right_one() -> None:
    right = [value(n, correct=True, exceeded=False, cfg=PAPER) for n in range(100)]
    wrong = [value(n, correct=False, exceeded=False, cfg=PAPER) for n in range(100)]
    assert right == sorted(right, reverse=True) and len(set(right)) == 100
    assert wrong == sorted(wrong) and len(set(wrong)) == 100
    assert max(wrong) < min(right)


def test_the_papers_inverted_shape_pays_for_length() -> None:
    cfg = Config(max_length=100, correct_short=0, correct_long=10, wrong_short=0, wrong_long=0)
    right = [value(n, correct=True, exceeded=False, cfg=cfg) for n in (0, 50, 100)]
    assert right == pytest.approx([0, 5, 10])
    assert value(70, correct=False, exceeded=False, cfg=cfg) == 0


def test_a_group_is_judged_by_the_verifier_and_valued_by_the_tokens_of_each_answer() -> None:
    answers = [answer("#### 2", 50), answer("#### 3", 50), answer("no idea", 75)]
    right, wrong, none = score(group(*answers), PAPER, NoTools())
    assert (right.value, right.verdict, right.reason) == (pytest.approx(1.5), Verdict.CORRECT, "match/string")
    assert right.extracted == "2"
    assert right.breakdown == {"correct": 1.0, "length": 50.0, "exceeded": 0.0}
    assert (wrong.value, wrong.verdict, wrong.reason) == (pytest.approx(-5.0), Verdict.WRONG, "mismatch")
    assert wrong.breakdown["correct"] == 0.0
    assert (none.value, none.verdict) == (pytest.approx(-10 * (1 - math.sqrt(0.5)) / 2), Verdict.NO_ANSWER)


@pytest.mark.parametrize("text", ["#### 2", "#### 3"])
def test_reaching_the_limit_costs_the_same_right_or_wrong(text: str) -> None:
    at_the_limit, beyond = graded(answer(text, 100)), graded(answer(text, 130))
    cut_before_it = graded(answer(text, 60, stop=StopReason.LENGTH))
    for out in (at_the_limit, beyond, cut_before_it):
        assert (out.value, out.breakdown["exceeded"]) == (-10.0, 1.0)
        assert out.breakdown["correct"] == float(text == "#### 2")
    assert graded(answer(text, 99)).breakdown["exceeded"] == 0.0
    assert graded(answer(text, 100), Config(max_length=100, exceeded=-3)).value == -3.0


@pytest.mark.parametrize("length", [50, 100])
def test_what_the_verifier_cannot_grade_stays_ungraded_even_at_the_limit(length: int) -> None:
    out = graded(answer("#### 2", length), gold="")
    assert (out.value, out.verdict, out.reason) == (None, Verdict.UNPARSABLE, "unparsed/gold")
    assert out.breakdown == {"correct": None, "length": float(length), "exceeded": float(length == 100)}


def test_only_the_verdict_of_the_verifier_counts_and_its_breakdown_is_kept() -> None:
    outs = [RewardOut(value=0.01, verdict=Verdict.CORRECT, reason="user/score", breakdown={"acc": 0.5})]
    out = graded(answer("x", 50), Config(max_length=100, verifier=verifier(*outs)))
    assert (out.value, out.reason) == (pytest.approx(1.5), "user/score")
    assert out.breakdown == {"correct": 1.0, "length": 50.0, "exceeded": 0.0, "verifier/acc": 0.5}


def test_values_of_the_verifier_that_are_not_finite_are_crashes() -> None:
    cfg = Config(max_length=100, verifier=verifier(RewardOut(value=math.nan, verdict=Verdict.CORRECT)))
    out = graded(answer("x", 50), cfg)
    assert (out.value, out.verdict, out.reason) == (None, Verdict.CRASH, "crash/not_finite")


def test_a_verifier_with_too_few_outcomes_is_a_crash_of_the_rubric() -> None:
    part = Component("cosine_length", cosine_length, Config(max_length=9, verifier=verifier()))
    [out] = score_groups([group(answer("x", 5))], {"length": part}, RubricConfig(), NoTools())
    assert (out.rewards[0].value, out.rewards[0].verdict) == (None, Verdict.CRASH)


def test_a_verifier_that_does_not_judge_is_refused() -> None:
    cfg = Config(max_length=100, verifier=build_component("rewards", "repetition", "verifier"))
    with pytest.raises(ConfigError, match="'repetition' gives values but does not judge") as caught:
        graded(answer("#### 2", 5), cfg)
    assert caught.value.where == "verifier.name"


def test_an_error_of_the_verifiers_config_names_its_place() -> None:
    tree = {"name": "user_function", "path": "no_such_lab.f", "isolate": False}
    cfg = Config(max_length=9, verifier=build_component("rewards", tree, "verifier"))
    with pytest.raises(ConfigError, match="cannot import 'no_such_lab'") as caught:
        graded(answer("x", 5), cfg)
    assert caught.value.where == "verifier.path=no_such_lab.f"


def test_it_is_configured_from_yaml_with_the_budget_of_the_run(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "sampling: {max_tokens: 48}\n"
        "rewards:\n"
        "  length:\n"
        "    name: cosine_length\n"
        "    max_length: ${sampling.max_tokens}\n"
        "    verifier: {name: math, markers: [boxed]}\n"
    )
    tree = config.load(file, ["rewards.length.wrong_short=-2"]).tree["rewards"]["length"]
    made = build_component("rewards", tree, "rewards.length").config
    assert (made.max_length, made.wrong_short, made.correct_short) == (48, -2.0, 2.0)
    assert (made.verifier.name, made.verifier.config.markers) == ("math", ["boxed"])
    assert config.build(Config, config.to_tree(made)) == made


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({}, "max_length"),
        ({"max_length": -1}, "max_length"),
        ({"correct_short": math.nan}, "correct_short"),
        ({"exceeded": -math.inf}, "exceeded"),
        ({"wrong_long": 1.5}, "wrong_long"),
        ({"wrong_short": 1.01}, "wrong_short"),
        ({"exceeded": 2}, "exceeded"),
        ({"correct_long": -1}, "wrong_long"),
        ({"verifier": verifier(weight=0.5)}, "verifier.weight"),
        ({"weight": math.nan}, "weight"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**({"max_length": 100} if wrong else {}) | wrong)
    assert caught.value.where == where
