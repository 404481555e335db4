"""The rubric: weighted sums by hand, ungraded parts, crashes at the boundary, truncation, counts, light imports."""

from __future__ import annotations

import math
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rewards.base import RewardConfig, Schedule, weight_at
from rewards.rubric import RubricConfig, reason_counts, score_groups, verdict_counts
from rlhf.core.component import Component
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict


@dataclass(frozen=True)
class NoTools:
    """No reward here asks for a worker."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        raise AssertionError("not expected")


def group(*texts: str, stop: StopReason = StopReason.EOS, prompt_id: str = "p") -> Group:
    prompt = Prompt(id=prompt_id, messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
    trajectories = tuple(
        Trajectory(
            id=f"0-0-{prompt_id}-{n}", prompt_id=prompt_id, index=n, prompt_tokens=(1,), tokens=(2,), logprobs=(-0.5,),
            text=text, stop=stop, policy_version=0, seed=n,
        )
        for n, text in enumerate(texts)
    )  # fmt: skip
    return Group(prompt=prompt, trajectories=trajectories)


def component(
    name: str, grade: Callable[[str], RewardOut], *, weight: float = 1.0, schedule: Schedule | None = None
) -> Component:
    module = types.ModuleType(name)

    def score(group: Group, cfg: Any, tools: Any) -> list[RewardOut]:
        return [grade(trajectory.text) for trajectory in group.trajectories]

    vars(module).update(Config=RewardConfig, score=score)
    return Component(name, module, RewardConfig(weight=weight, schedule=schedule or Schedule()))


def length(text: str) -> RewardOut:
    return RewardOut(value=float(len(text)), verdict=Verdict.CORRECT, reason="length", breakdown={"chars": len(text)})


def is_two(text: str) -> RewardOut:
    right = text == "2"
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    return RewardOut(value=float(right), verdict=verdict, reason="is_two", extracted=text)


def ungraded(text: str) -> RewardOut:
    return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="unparsed/gold")


def scored(components: Mapping[str, Component], *groups: Group, cfg: RubricConfig | None = None) -> list[Group]:
    return score_groups(groups, components, cfg or RubricConfig(), NoTools())


def test_the_value_is_the_weighted_sum_and_the_first_component_speaks() -> None:
    parts = {"answer": component("a", is_two), "size": component("b", length, weight=-0.25)}
    [out] = scored(parts, group("2", "three"))
    first, second = out.rewards
    assert first.value == 1.0 - 0.25 * 1
    assert second.value == 0.0 - 0.25 * 5
    assert (first.verdict, first.reason, first.extracted) == (Verdict.CORRECT, "is_two", "2")
    assert second.verdict is Verdict.WRONG
    assert first.breakdown == {"answer": 1.0, "size": 1.0, "size/chars": 1}
    assert second.breakdown == {"answer": 0.0, "size": 5.0, "size/chars": 5}


def test_groups_keep_their_order_and_everything_but_rewards() -> None:
    groups = [group("2", prompt_id="p"), group("2", "3", prompt_id="q")]
    for concurrency in (1, 3):
        out = scored({"answer": component("a", is_two)}, *groups, cfg=RubricConfig(concurrency=concurrency))
        assert [g.prompt.id for g in out] == ["p", "q"]
        assert [g.trajectories for g in out] == [g.trajectories for g in groups]
        assert [[r.value for r in g.rewards] for g in out] == [[1.0], [1.0, 0.0]]


def test_an_ungraded_component_makes_the_total_ungraded_and_is_named() -> None:
    parts = {"answer": component("a", is_two), "judge": component("b", ungraded)}
    [reward] = scored(parts, group("2"))[0].rewards
    assert reward.value is None
    assert (reward.verdict, reward.reason) == (Verdict.UNPARSABLE, "unparsed/gold@judge")
    assert reward.extracted == "2"
    assert reward.breakdown == {"answer": 1.0, "judge": None}


def test_an_ungraded_primary_keeps_its_own_reason() -> None:
    [reward] = scored({"judge": component("b", ungraded), "answer": component("a", is_two)}, group("2"))[0].rewards
    assert (reward.value, reward.reason) == (None, "unparsed/gold")


def test_a_component_of_weight_zero_is_only_logged() -> None:
    parts = {"answer": component("a", is_two), "judge": component("b", ungraded, weight=0.0)}
    [reward] = scored(parts, group("2"))[0].rewards
    assert (reward.value, reward.verdict, reward.breakdown) == (1.0, Verdict.CORRECT, {"answer": 1.0, "judge": None})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_crashes(value: float) -> None:
    def grade(text: str) -> RewardOut:
        return RewardOut(value=value, verdict=Verdict.CORRECT)

    [reward] = scored({"answer": component("a", grade)}, group("2"))[0].rewards
    assert (reward.value, reward.verdict, reward.reason) == (None, Verdict.CRASH, "crash/not_finite")


def test_a_component_that_raises_costs_its_group_only() -> None:
    def grade(text: str) -> RewardOut:
        raise KeyError(text)

    good, bad = group("2", prompt_id="p"), group("2", "3", prompt_id="q")

    def sometimes(text: str) -> RewardOut:
        return grade(text) if text == "3" else is_two(text)

    out = scored({"answer": component("a", sometimes)}, good, bad)
    assert out[0].rewards[0].value == 1.0
    assert [(r.value, r.verdict, r.reason) for r in out[1].rewards] == [(None, Verdict.CRASH, "crash/KeyError")] * 2
    parts = {"answer": component("a", is_two), "broken": component("b", grade)}
    [reward] = scored(parts, good)[0].rewards
    assert (reward.value, reward.verdict, reward.reason) == (None, Verdict.CRASH, "crash/KeyError@broken")


def test_an_error_that_the_user_can_mend_goes_through() -> None:
    def grade(text: str) -> RewardOut:
        raise ConfigError("path", "is wrong", fix="mend it")

    with pytest.raises(ConfigError, match="mend it"):
        scored({"answer": component("a", grade)}, group("2"))


def test_too_few_outcomes_are_a_crash_not_a_shift() -> None:
    parts = {"answer": component("a", is_two)}
    vars(parts["answer"].module)["score"] = lambda group, cfg, tools: [is_two("2")]  # pyright: ignore
    [out] = scored(parts, group("2", "3"))
    assert [r.reason for r in out.rewards] == ["crash/wrong_length"] * 2


def test_truncated_answers_get_their_value_and_say_so() -> None:
    parts = {"answer": component("a", is_two)}
    cfg = RubricConfig(truncated_value=-0.5)
    [out] = scored(parts, group("2", "3", stop=StopReason.LENGTH), cfg=cfg)
    assert [r.value for r in out.rewards] == [-0.5, -0.5]
    assert out.rewards[0].reason == "truncated"
    assert out.rewards[0].breakdown == {"answer": 1.0, "truncated": -0.5}
    [out] = scored(parts, group("2"), cfg=cfg)
    assert (out.rewards[0].value, out.rewards[0].breakdown) == (1.0, {"answer": 1.0})
    [out] = scored(parts, group("2", stop=StopReason.LENGTH))
    assert out.rewards[0].value == 1.0


def test_counts_of_verdicts_and_reasons() -> None:
    groups = scored({"answer": component("a", is_two)}, group("2", "2", "3"), group("4"))
    counts = verdict_counts(groups)
    assert counts[Verdict.CORRECT] == 2 and counts[Verdict.WRONG] == 2
    assert counts.keys() == set(Verdict) and sum(counts.values()) == 4
    assert reason_counts(groups) == {"is_two": 4}
    unread = replace(groups[0].rewards[0], reason="limit/chars")
    groups = [replace(groups[0], rewards=(unread, replace(unread, reason="limit/depth"), replace(unread, reason="")))]
    assert reason_counts(groups) == {"limit": 2}


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="names no reward"):
        scored({}, group("2"))
    with pytest.raises(ConfigError, match="weight"):
        RewardConfig(weight=math.nan)
    with pytest.raises(ConfigError, match="truncated_value"):
        RubricConfig(truncated_value=math.inf)
    with pytest.raises(ConfigError, match="concurrency"):
        RubricConfig(concurrency=0)


IMPORT = """
import sys, time
start = time.process_time()  # unlike the clock on the wall, the same on a busy machine
import rewards
from rewards.math import verify
seconds = time.process_time() - start
assert verify("#### 2", "2").value == 1.0
heavy = {"torch", "sympy", "transformers", "omegaconf", "numpy"} & sys.modules.keys()
print(seconds, sorted(heavy))
"""


def test_the_package_imports_fast_and_alone() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    seconds, heavy = run.stdout.strip().split(" ", 1)
    assert heavy == "[]"
    assert float(seconds) < 0.3


def formal(text: str) -> RewardOut:
    return RewardOut(value=float("#" in text), verdict=Verdict.SKIPPED, reason="form")


def test_a_gate_must_be_passed_for_the_others_to_count() -> None:
    parts = {
        "size": component("a", length),
        "form": component("b", formal, weight=0.0),
        "bonus": component("c", length, weight=0.5),
    }
    [out] = scored(parts, group("#12", "123"), cfg=RubricConfig(gates=["form"], gate_value=-1.0))
    passed, failed = out.rewards
    assert passed.value == 3 + 1.5 and passed.reason == "length"
    assert failed.value == -1.0 and failed.reason == "gate/form"
    assert failed.verdict is Verdict.CORRECT, "what the verifier found stands"
    assert failed.breakdown["form"] == 0.0 and failed.breakdown["size"] == 3.0


def test_a_gate_with_a_weight_is_also_added() -> None:
    parts = {"size": component("a", length), "form": component("b", formal, weight=0.5)}
    [out] = scored(parts, group("#12", "123"), cfg=RubricConfig(gates=["form"]))
    assert [reward.value for reward in out.rewards] == [3.5, 0.0]


def test_factors_multiply_the_sum_of_the_others() -> None:
    parts = {
        "answer": component("a", is_two),
        "base": component("b", length, weight=2.0),
        "form": component("c", formal, weight=0.5),
    }
    [out] = scored(parts, group("2", "2#", "##"), cfg=RubricConfig(multiply=["form"]))
    assert [reward.value for reward in out.rewards] == [0.0, (0 + 2 * 2) * 0.5, (0 + 2 * 2) * 0.5]


@pytest.mark.parametrize("cfg", [RubricConfig(gates=["form"]), RubricConfig(multiply=["form"])])
def test_an_ungraded_gate_or_factor_leaves_the_answer_ungraded(cfg: RubricConfig) -> None:
    weight = 0.0 if cfg.gates else 1.0
    [out] = scored(
        {"answer": component("a", is_two), "form": component("b", ungraded, weight=weight)}, group("2"), cfg=cfg
    )
    assert out.rewards[0].value is None and out.rewards[0].reason == "unparsed/gold@form"


def test_a_reward_is_a_gate_or_a_factor() -> None:
    with pytest.raises(ConfigError, match="is a gate too"):
        RubricConfig(gates=["form"], multiply=["form"])
    with pytest.raises(ConfigError, match="gate_value"):
        RubricConfig(gate_value=math.nan)


def at_step(step: int, *texts: str) -> Group:
    scored = group(*texts)
    return replace(scored, trajectories=tuple(replace(t, id=f"0-{step}-p-{t.index}") for t in scored.trajectories))


@pytest.mark.parametrize(
    ("shape", "step", "weight"),
    [
        ("linear", 0, 1.0), ("linear", 10, 1.0), ("linear", 15, 0.75), ("linear", 20, 0.5), ("linear", 30, 0.0),
        ("linear", 99, 0.0), ("cosine", 20, 0.5), ("cosine", 15, 0.8535533905932737), ("jump", 29, 1.0),
        ("jump", 30, 0.0),
    ],
)  # fmt: skip
def test_a_weight_moves_between_two_steps(shape: str, step: int, weight: float) -> None:
    cfg = RewardConfig(weight=1.0, schedule=Schedule(to=0.0, begin=10, end=30, shape=shape))
    assert weight_at(cfg, step) == pytest.approx(weight)


def test_without_a_schedule_the_weight_stays() -> None:
    assert [weight_at(RewardConfig(weight=0.5), step) for step in (0, 1, 1000)] == [0.5] * 3


def test_a_sample_is_weighed_as_at_the_step_that_made_it() -> None:
    fading = component("length", length, weight=1.0, schedule=Schedule(to=0.0, end=10))
    parts = {"is_two": component("is_two", is_two), "length": fading}
    values = [
        score_groups([at_step(step, "2")], parts, RubricConfig(), NoTools())[0].rewards[0] for step in (0, 5, 10, 20)
    ]
    assert [out.value for out in values] == [2.0, 1.5, 1.0, 1.0]
    assert [dict(out.weights) for out in values[1:3]] == [{"is_two": 1.0, "length": 0.5}, {"is_two": 1.0}]


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"to": math.nan, "end": 1}, "to"), ({"to": 0.0}, "end"), ({"to": 0.0, "begin": 5, "end": 4}, "end"),
        ({"to": 0.0, "end": 4, "shape": "steep"}, "shape"),
    ],
)  # fmt: skip
def test_impossible_schedules_name_their_key(settings: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule(**settings)
    assert caught.value.where == where


def placing(*rows: tuple[float, ...]) -> Callable[[str], RewardOut]:
    """Places a row on the tokens; texts number the rows."""
    return lambda text: RewardOut(
        value=sum(rows[int(text)]), verdict=Verdict.SKIPPED, reason="placed", per_token=rows[int(text)]
    )


def long_group(*texts: str) -> Group:
    scored = group(*texts)
    longer = tuple(replace(t, tokens=(2, 3), logprobs=(-0.5, -0.5)) for t in scored.trajectories)
    return replace(scored, trajectories=longer)


def test_what_is_placed_on_tokens_is_weighted_and_multiplied_like_its_value() -> None:
    parts = {
        "is_two": component("is_two", lambda text: RewardOut(value=2.0, verdict=Verdict.CORRECT)),
        "first": component("first", placing((1.0, 0.0)), weight=0.5),
        "second": component("second", placing((0.0, -3.0)), weight=2.0),
    }
    [scored] = score_groups([long_group("0")], parts, RubricConfig(), NoTools())
    assert (scored.rewards[0].value, scored.rewards[0].per_token) == (2.0 + 0.5 - 6.0, (0.5, -6.0))
    [scored] = score_groups([long_group("0")], parts, RubricConfig(multiply=["is_two"]), NoTools())
    assert (scored.rewards[0].value, scored.rewards[0].per_token) == (-11.0, (1.0, -12.0))


def test_a_value_in_place_of_the_sum_is_due_to_the_whole_answer() -> None:
    parts = {"first": component("first", placing((1.0, 0.0)))}
    closed = {**parts, "gate": component("gate", lambda text: RewardOut(value=0.0, verdict=Verdict.SKIPPED))}
    [scored] = score_groups([long_group("0")], closed, RubricConfig(gates=["gate"]), NoTools())
    assert (scored.rewards[0].value, scored.rewards[0].per_token) == (0.0, ())
    cut = long_group("0")
    cut = replace(cut, trajectories=tuple(replace(t, stop=StopReason.LENGTH) for t in cut.trajectories))
    [scored] = score_groups([cut], parts, RubricConfig(truncated_value=-1.0), NoTools())
    assert (scored.rewards[0].value, scored.rewards[0].per_token) == (-1.0, ())


@pytest.mark.parametrize(("row", "reason"), [((1.0,), "per_token_length"), ((math.nan, 0.0), "not_finite")])
def test_what_does_not_fit_the_tokens_is_a_crash(row: tuple[float, ...], reason: str) -> None:
    parts = {"first": component("first", lambda text: RewardOut(value=1.0, verdict=Verdict.SKIPPED, per_token=row))}
    [scored] = score_groups([long_group("0")], parts, RubricConfig(), NoTools())
    assert (scored.rewards[0].value, scored.rewards[0].reason) == (None, f"crash/{reason}")


def test_no_answer_may_have_a_value_of_its_own() -> None:
    silent = component("silent", lambda text: RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason="no_answer"))
    parts = {"silent": silent, "length": component("length", length)}
    [scored] = score_groups([group("abc")], parts, RubricConfig(no_answer_value=-2.0), NoTools())
    out = scored.rewards[0]
    assert (out.value, out.reason, out.breakdown["no_answer_value"]) == (-2.0, "no_answer", -2.0)
    [scored] = score_groups([group("abc")], parts, RubricConfig(), NoTools())
    assert scored.rewards[0].value == 3.0
    with pytest.raises(ConfigError, match="no_answer_value"):
        RubricConfig(no_answer_value=math.inf)
