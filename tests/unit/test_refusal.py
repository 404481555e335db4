"""The refusal reward: four outcomes, what is known by group and by probe, failures, wrong settings."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from shaping import NoTools, answers

from rewards import refusal
from rewards.base import RewardConfig, WorkerError
from rewards.refusal import Classifier, Config, score
from rewards.rubric import RubricConfig, score_groups
from rlhf.core import config
from rlhf.core.component import Component
from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError
from rlhf.core.outcomes import reported, verified
from rlhf.core.types import Group, RewardOut, Verdict

RIGHT, WRONG, DECLINED = "#### 2", "#### 3", "I don't know."


def outs(texts: list[str], cfg: Config | None = None, **columns: float) -> list[RewardOut]:
    return score(answers(texts, columns=columns), cfg or Config(), NoTools())


def verifier(*given: RewardOut) -> Component:
    module = ModuleType("given")

    def give(group: Group, cfg: Any, tools: Any) -> list[RewardOut]:
        return list(given)

    vars(module).update(Config=RewardConfig, score=give)
    return Component("given", module, RewardConfig())


VALUES = Config(correct=4.0, wrong=1.0, honest_refusal=3.0, known_refusal=2.0)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([RIGHT, WRONG, DECLINED], [(4.0, "match/string"), (1.0, "mismatch"), (2.0, "refusal/known")]),
        ([WRONG, WRONG, DECLINED], [(1.0, "mismatch"), (1.0, "mismatch"), (3.0, "refusal/unknown")]),
        ([DECLINED, DECLINED], [(3.0, "refusal/untried")] * 2),
        (["no figure at all", DECLINED], [(1.0, "no_answer"), (3.0, "refusal/unknown")]),
    ],
)
def test_each_outcome_has_its_value(texts: list[str], expected: list[tuple[float, str]]) -> None:
    assert [(out.value, out.reason) for out in outs(texts, VALUES)] == expected


def test_the_defaults_are_the_ternary_reward_and_a_miss_for_what_is_known() -> None:
    assert [out.value for out in outs([RIGHT, WRONG, DECLINED])] == [1.0, -1.0, -1.0]
    assert [out.value for out in outs([WRONG, DECLINED])] == [-1.0, 0.0]


def test_verdict_and_reading_are_the_verifiers_and_a_refusal_is_a_verdict_of_its_own() -> None:
    right, wrong, declined = outs([RIGHT, WRONG, DECLINED])
    assert (right.verdict, right.extracted) == (Verdict.CORRECT, "2")
    assert (wrong.verdict, wrong.extracted) == (Verdict.WRONG, "3")
    assert (declined.verdict, declined.extracted) == (Verdict.REFUSED, None)
    assert verified(declined)


@pytest.mark.parametrize(
    ("right", "wrong", "known_from", "known"),
    [(1, 9, 0.1, 1.0), (1, 9, 0.11, 0.0), (0, 3, 0.1, 0.0), (1, 1, 0.5, 1.0), (3, 0, 1.0, 1.0), (0, 0, 0.1, None)],
)
def test_a_question_is_known_from_a_share_of_right_ones_among_answers(
    right: int, wrong: int, known_from: float, known: float | None
) -> None:
    found = outs([RIGHT] * right + [WRONG] * wrong + [DECLINED] * 4, Config(known_from=known_from))
    assert {out.breakdown["known"] for out in found} == {known}
    share = right / (right + wrong) if right + wrong else None
    assert {out.breakdown["self_accuracy"] for out in found} == {share}


def test_too_few_answers_leave_a_question_untried() -> None:
    texts = [RIGHT, RIGHT, DECLINED]
    assert [out.reason for out in outs(texts, Config(min_answers=3))][-1] == "refusal/untried"
    assert [out.reason for out in outs(texts, Config(min_answers=2))][-1] == "refusal/known"


def test_what_a_probe_found_stands_above_the_group() -> None:
    assert outs([RIGHT, DECLINED], self_accuracy=0.0)[1].reason == "refusal/unknown"
    found = outs([WRONG, DECLINED], self_accuracy=0.9)[1]
    assert (found.reason, found.value) == ("refusal/known", -1.0)
    assert (found.breakdown["probed"], found.breakdown["self_accuracy"]) == (1.0, 0.9)
    assert outs([WRONG])[0].breakdown["probed"] == 0.0


def test_the_breakdown_tells_outcomes_apart() -> None:
    found = outs([RIGHT, WRONG, DECLINED])
    rows = [tuple(out.breakdown[key] for key in ("correct", "wrong", "refused")) for out in found]
    assert rows == [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]


def test_a_right_answer_beside_a_refusal_is_a_refusal() -> None:
    """Else the words that save a wrong answer would stand under every answer."""
    for text in (f"{RIGHT}\nI'm not sure", f"{WRONG}\nI'm not sure"):
        assert outs([text])[0].verdict is Verdict.REFUSED


def test_what_the_verifier_cannot_grade_has_no_value_and_no_part_in_what_is_known() -> None:
    given = (
        RewardOut(value=None, verdict=Verdict.TIMEOUT, reason="timeout/x"),
        RewardOut(value=1.0, verdict=Verdict.CORRECT),
        RewardOut(value=0.0, verdict=Verdict.WRONG),
    )
    found = outs(["a", "b", DECLINED], Config(verifier=verifier(*given)))
    assert (found[0].value, found[0].verdict, found[0].reason) == (None, Verdict.TIMEOUT, "timeout/x")
    assert found[0].breakdown["correct"] is None and found[0].breakdown["wrong"] is None
    assert found[2].breakdown["self_accuracy"] == 1.0


def test_a_verifier_that_does_not_judge_is_refused() -> None:
    cfg = Config(verifier=build_component("rewards", "repetition", "verifier"))
    with pytest.raises(ConfigError, match="'repetition' gives values but does not judge"):
        outs([RIGHT], cfg)


def test_a_classifier_decides_and_its_failures_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [0.2, 0.7, TimeoutError("late"), WorkerError("died", "gone")]
    monkeypatch.setattr("rewards.refusal.classifier.probabilities", lambda texts, cfg: said)
    found = outs([RIGHT, DECLINED, DECLINED, WRONG], Config(classifier=Classifier(model="folder", threshold=0.7)))
    assert [out.value for out in found] == [1.0, -1.0, None, None]
    assert [out.reason for out in found[1:]] == ["refusal/known", "timeout/classifier", "crash/classifier_died"]
    assert [out.verdict for out in found[2:]] == [Verdict.TIMEOUT, Verdict.CRASH]
    assert Config(classifier=Classifier(model="folder")).costly and not Config().costly


def test_confidence_is_measured_and_changes_no_value() -> None:
    cfg = Config(confidence_words={"I am sure": 1.0})
    found = outs([f"confidence: 40%\n{RIGHT}", f"I am sure.\n{WRONG}", WRONG], cfg)
    assert [out.breakdown["confidence"] for out in found] == [0.4, 1.0, None]
    assert [out.value for out in found] == [1.0, -1.0, -1.0]


def test_it_only_measures_with_no_weight_and_is_found_in_a_rubric() -> None:
    parts = {
        "math": build_component("rewards", "math", "math"),
        "honest": Component("refusal", refusal, replace(Config(), weight=0.0)),
    }
    [scored] = score_groups([answers([RIGHT, DECLINED])], parts, RubricConfig(), NoTools())
    assert [out.value for out in scored.rewards] == [1.0, 0.0]
    assert [reported(out, "refused") for out in scored.rewards] == [0.0, 1.0]
    assert reported(RewardOut(value=1.0, verdict=Verdict.CORRECT, breakdown={"math": 1.0}), "refused") is None


def test_a_value_for_no_answer_does_not_touch_refusals() -> None:
    parts = {"refusal": Component("refusal", refusal, Config())}
    [scored] = score_groups([answers([WRONG, DECLINED])], parts, RubricConfig(no_answer_value=-5.0), NoTools())
    assert [out.value for out in scored.rewards] == [-1.0, 0.0]


def test_it_reads_back_from_its_own_tree() -> None:
    tree = {"name": "refusal", "honest_refusal": 0.5, "classifier": {"model": "m"}, "verifier": {"name": "math"}}
    made = build_component("rewards", tree, "rewards.refusal").config
    assert (made.honest_refusal, made.classifier.model) == (0.5, "m")
    assert config.build(Config, config.to_tree(made)) == made


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"correct": float("nan")}, "correct"),
        ({"wrong": float("inf")}, "wrong"),
        ({"wrong": 1.5}, "wrong"),
        ({"honest_refusal": 1.1}, "honest_refusal"),
        ({"known_refusal": 0.5}, "known_refusal"),
        ({"known_from": 0.0}, "known_from"),
        ({"known_from": 1.1}, "known_from"),
        ({"min_answers": 0}, "min_answers"),
        ({"place": "end"}, "place"),
        ({"phrases": []}, "phrases"),
        ({"phrases": ["I don't know", " * "]}, "phrases"),
        ({"confidence_words": {"sure": 2.0}}, "confidence_words"),
        ({"weight": float("nan")}, "weight"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("wrong", "where"), [({"threshold": 0.0}, "threshold"), ({"timeout_s": 0.0}, "timeout_s"), ({"label": ""}, "label")]
)
def test_impossible_settings_of_a_classifier_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Classifier(model="m", **wrong)
    assert caught.value.where == where
