"""The reward `process` by hand: steps, guards, aggregates, credit per step, and what becomes of failures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rewards.process as process
from rewards.process import Config, credit, steps
from rewards.process.local import Answer, Unscored
from rewards.rubric import RubricConfig, score_groups
from rlhf.core.component import Component
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict

NO_TOOLS: Any = None


class Scores:
    """Stands for a model: gives each step the score that a table has for its text."""

    def __init__(self, table: dict[str, float] | Unscored) -> None:
        self.table, self.asked = table, list[Answer]()

    def score(self, answers: Sequence[Answer], **_: float) -> list[tuple[float, ...] | Unscored]:
        self.asked += answers
        table = self.table
        if isinstance(table, Unscored):
            return [table] * len(answers)
        return [tuple(table[step] for step in answer.steps) for answer in answers]


def group(*texts: str) -> Group:
    """Answers of one token per character, and EOS."""
    prompt = Prompt(
        id="p",
        messages=(Message(role="system", content="add"), Message(role="user", content="1+2+3=")),
        gold="6",
        task="sums",
    )
    trajectories = tuple(
        Trajectory(
            id=f"0-0-p-{i}",
            prompt_id="p",
            index=i,
            prompt_tokens=(1,),
            tokens=(*range(len(text)), 0),
            logprobs=(0.0,) * (len(text) + 1),
            text=text,
            stop=StopReason.EOS,
            policy_version=0,
            seed=0,
            ends=(*range(1, len(text) + 1), len(text)),
        )
        for i, text in enumerate(texts)
    )
    return Group(prompt=prompt, trajectories=trajectories)


def scored(
    monkeypatch: pytest.MonkeyPatch, table: dict[str, float] | Unscored, *texts: str, **changes: Any
) -> tuple[list[RewardOut], Scores]:
    model = Scores(table)
    monkeypatch.setattr(process, "scorer_of", lambda folder, form, local: model)
    return process.score(group(*texts), Config(**{"model": "m", **changes}), NO_TOOLS), model


# Steps


@pytest.mark.parametrize(
    ("text", "separator", "want"),
    [
        ("3+5=8\n8+9=17", "\n", [("3+5=8", 5), ("8+9=17", 12)]),
        ("one\n\n\n\ntwo\n\n", "\n\n", [("one", 3), ("two", 10)]),
        ("  a  \n", "\n", [("a", 3)]),
        ("a\n---\nb", "\n", [("a\n---", 5), ("b", 7)]),
        ("---\n\na", "\n", [("---\n\na", 6)]),
        ("\\[\na\n\\]\n", "\n", [("\\[\na\n\\]", 7)]),
        ("...", "\n", []),
        ("", "\n", []),
        ("no separator", "\n\n", [("no separator", 12)]),
    ],
)
def test_an_answer_is_cut_into_steps(text: str, separator: str, want: list[tuple[str, int]]) -> None:
    assert [(step.text, step.end) for step in steps.split(text, separator=separator)] == want


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        (["8+0=8", "8+0=8", "8+1=9"], [False, True, False]),
        (["So  it is 8.", "so it is 8."], [False, True]),
        (["Step 1: add", "Step 2: add", "3. add", "(4) add"], [False, True, True, False]),
        (["3.5 is it", "4.5 is it"], [False, False]),
    ],
)
def test_repeats_are_seen_through_spaces_case_and_numbering(lines: list[str], want: list[bool]) -> None:
    assert steps.repeats(steps.split("\n".join(lines), separator="\n")) == want


# Formulas


@pytest.mark.parametrize(("how", "want"), [("last", 0.4), ("min", 0.4), ("product", 0.16), ("mean", 0.6)])
def test_aggregates(how: str, want: float) -> None:
    scores = {"last": (0.8, 0.4), "min": (0.8, 0.4, 0.5), "product": (0.8, 0.5, 0.4), "mean": (0.8, 0.6, 0.4)}[how]
    assert credit.aggregate(scores, how) == pytest.approx(want)


@pytest.mark.parametrize(
    ("rewards", "want"),
    [
        ((0.4, 0.2, 0.6), (0.4, -0.2, 0.0)),
        ((0.9, 0.9, 0.9), (0.9, 0.0, 0.0)),
        ((0.5, -0.5, -1.0), (0.5, -1.0, -0.5)),
        ((0.3,), (0.3,)),
    ],
)
def test_credit_of_the_least_by_hand(rewards: tuple[float, ...], want: tuple[float, ...]) -> None:
    assert credit.least_so_far(rewards) == pytest.approx(want)


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_shaping_telescopes_to_nothing(gamma: float) -> None:
    placed = credit.shaping((0.9, 0.2, 0.7), gamma=gamma)
    assert placed == pytest.approx((gamma * 0.9, gamma * 0.2 - 0.9, gamma * 0.7 - 0.2, -0.7))
    # Discounted per step, what is left is minus the potential of the question, which is 0.
    assert math.fsum(gamma**j * reward for j, reward in enumerate(placed)) == pytest.approx(0.0)


# Outcomes

TABLE = {"1+2=3": 0.9, "3+3=7": 0.2, "#### 7": 0.3, "3+0=3": 1.0, "3+3=6": 0.8, "#### 6": 0.95}


def test_one_number_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "1+2=3\n3+3=7\n#### 7"
    for how, want in (("last", 0.3), ("min", 0.2), ("product", 0.9 * 0.2 * 0.3), ("mean", 1.4 / 3)):
        [out], model = scored(monkeypatch, TABLE, text, aggregate=how)
        assert out.value == pytest.approx(want) and out.per_token == ()
        assert (out.verdict, out.reason) == (Verdict.SKIPPED, "process/scored")
    assert out.breakdown == pytest.approx({"steps": 3, "repeats": 0, "least": 0.2, "mean": 1.4 / 3, "unscored": 0})
    assert [dict(m) for m in model.asked[0].messages] == [
        {"role": "system", "content": "add"},
        {"role": "user", "content": "1+2+3="},
    ]


def test_signed_scores_go_from_minus_one_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    [out], _ = scored(monkeypatch, TABLE, "1+2=3\n3+3=7", signed=True)
    assert out.value == pytest.approx(-0.6)


def test_credit_stands_on_the_token_that_completes_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "1+2=3\n3+3=7"
    for how, want in (
        ("sum", {4: 0.9, 10: 0.2}),
        ("min", {4: 0.9, 10: -0.7}),
        ("potential", {4: 0.9, 10: -0.7, 11: -0.2}),
    ):
        [out], _ = scored(monkeypatch, TABLE, text, credit=how)
        assert len(out.per_token) == len(text) + 1
        assert {t: value for t, value in enumerate(out.per_token) if value} == pytest.approx(want)
        assert out.value == pytest.approx(math.fsum(want.values()))


def test_steps_that_end_inside_one_token_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scores(TABLE)
    monkeypatch.setattr(process, "scorer_of", lambda *_: model)
    given = group("1+2=3\n3+3=7")
    coarse = replace(given.trajectories[0], tokens=(1, 2), ends=(3, 11), logprobs=(0.0, 0.0))
    for how, want in (("sum", 1.1), ("potential", 0.0)):
        [out] = process.score(replace(given, trajectories=(coarse,)), Config(model="m", credit=how), NO_TOOLS)
        assert out.per_token == pytest.approx((0.0, want))


def test_without_ends_of_tokens_the_value_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Scores(TABLE)
    monkeypatch.setattr(process, "scorer_of", lambda *_: model)
    given = group("1+2=3\n3+3=7")
    bare = replace(given, trajectories=(replace(given.trajectories[0], ends=()),))
    [out] = process.score(bare, Config(model="m", credit="sum"), NO_TOOLS)
    assert (out.value, out.per_token) == (pytest.approx(1.1), ())


PADDED = "1+2=3\n3+0=3\n3+0=3\n3+0=3\n3+3=6\n#### 6"
PLAIN = "1+2=3\n3+3=6\n#### 6"


def test_padding_pays_by_sum_alone_and_guards_cost_repeats_their_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    def worth(text: str, **changes: Any) -> float:
        value = scored(monkeypatch, TABLE, text, **changes)[0][0].value
        assert value is not None
        return value

    assert worth(PADDED, credit="sum", repeats="keep") == pytest.approx(worth(PLAIN, credit="sum") + 3.0)
    assert worth(PADDED, credit="sum") == pytest.approx(worth(PLAIN, credit="sum") + 1.0)
    for how in ("min", "potential"):
        assert worth(PADDED, credit=how, repeats="keep") <= worth(PLAIN, credit=how)
    assert worth(PADDED) == worth(PLAIN) == 0.8
    assert worth(PADDED, repeats="lowest") == 0.0
    assert worth(PADDED, repeats="lowest", signed=True) == -1.0


def test_the_model_does_not_see_repeats_but_all_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scored(monkeypatch, TABLE, PADDED)[1].asked[0].steps.count("3+0=3") == 1
    assert scored(monkeypatch, TABLE, PADDED, repeats="keep")[1].asked[0].steps.count("3+0=3") == 3
    assert scored(monkeypatch, TABLE, PADDED)[0][0].breakdown["repeats"] == 2


def test_what_is_not_shown_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    outs, model = scored(monkeypatch, TABLE, "", "...\n--", PADDED, "1" * 41, PLAIN, max_steps=5, max_chars=40)
    found = [(out.value, out.verdict, out.reason) for out in outs]
    assert found[:4] == [
        (0.0, Verdict.NO_ANSWER, "process/empty"),
        (0.0, Verdict.NO_ANSWER, "process/empty"),
        (0.0, Verdict.UNPARSABLE, "limit/steps"),
        (0.0, Verdict.UNPARSABLE, "limit/chars"),
    ]
    assert outs[4].value == 0.8 and len(model.asked) == 1
    assert scored(monkeypatch, TABLE, "", signed=True)[0][0].value == -1.0


def test_equal_answers_are_asked_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    outs, model = scored(monkeypatch, TABLE, PLAIN, "1+2=3", PLAIN)
    assert [out.value for out in outs] == [0.8, 0.9, 0.8] and len(model.asked) == 2


@pytest.mark.parametrize(
    ("kind", "verdict", "reason"),
    [
        ("timeout", Verdict.TIMEOUT, "timeout/process"),
        ("too_long", Verdict.CRASH, "crash/process_too_long"),
        ("memory", Verdict.CRASH, "crash/process_memory"),
    ],
)
def test_what_was_not_scored_has_no_value(
    monkeypatch: pytest.MonkeyPatch, kind: str, verdict: Verdict, reason: str
) -> None:
    [out], _ = scored(monkeypatch, Unscored(kind=kind), PLAIN)
    assert (out.value, out.verdict, out.reason) == (None, verdict, reason)
    assert out.breakdown["unscored"] == 1.0


def test_scores_decide_only_where_the_config_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    outs, _ = scored(monkeypatch, TABLE, PLAIN, "1+2=3\n3+3=7", decides=True, correct_from=0.7)
    assert [out.verdict for out in outs] == [Verdict.CORRECT, Verdict.WRONG]
    assert Config(model="m").advisory and not Config(model="m", decides=True).advisory


def test_a_rubric_adds_credit_to_a_verifier_s_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "scorer_of", lambda *_: Scores(TABLE))
    from rewards import math as verifier

    config = Config(model="m", credit="sum", weight=0.5)
    parts = {
        "math": Component("math", verifier, verifier.Config(markers=["####"])),
        "process": Component("process", process, config),
    }
    [found] = score_groups([group(PLAIN)], parts, RubricConfig(), NO_TOOLS)
    [out] = found.rewards
    assert out.verdict is Verdict.CORRECT and out.value == pytest.approx(1 + 0.5 * 2.65)
    assert math.fsum(out.per_token) == pytest.approx(0.5 * 2.65)


def test_a_stage_s_model_is_asked_once_it_is_there() -> None:
    cfg = Config(stage="prm", credit="min")
    assert cfg.awaits is not None and cfg.awaits.stage == "prm" and cfg.places
    assert Config(model="m").awaits is None and not Config(model="m").places
    asking = cfg.awaits.asking(Path("runs/x/prm"))
    assert isinstance(asking, Config) and asking.awaits is None
    assert (asking.model, asking.stage, asking.credit) == ("runs/x/prm", "", "min")
    with pytest.raises(ConfigError, match="has not trained"):
        process.step_scores([process.answer(group(PLAIN).prompt, ["1+2=3"])], cfg)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config"):
        process.score(group(PLAIN), Config(model=str(tmp_path)), NO_TOOLS)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": ""}, "model"),
        ({"stage": "prm"}, "stage"),
        ({"credit": "max"}, "credit"),
        ({"aggregate": "sum"}, "aggregate"),
        ({"repeats": "drop"}, "repeats"),
        ({"separator": ""}, "separator"),
        ({"signed": True, "aggregate": "product"}, "signed"),
        ({"gamma": 1.1}, "gamma"),
        ({"correct_from": 0.0}, "correct_from"),
        ({"max_steps": 0}, "max_steps"),
        ({"deadline_s": 0.0}, "deadline_s"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{"model": "m", **change})
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("change", "where"), [({"kind": "lm"}, "kind"), ({"step_end": ""}, "step_end"), ({"good_label": 2}, "good_label")]
)
def test_bad_forms_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        process.Form(**change)
    assert caught.value.where == where
