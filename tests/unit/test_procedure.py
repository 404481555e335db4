"""Procedures: the four measures by hand, both forms of an answer, what is bounded, and where credit is placed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rewards import base, procedure
from rewards.procedure import Config, Label, verify
from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt, Verdict

GOLD = Label(states=("cab", "acb", "abc"))
NUMBERS = '{"init": 3, "intermediate": [4, 8], "final": 11}'


@pytest.mark.parametrize(
    ("answer", "pml", "pa", "sm", "fm"),
    [
        ("cab\nacb\n#### abc", 3, 1.0, 1, 1),
        ("cab\n#### abc", 1, 1 / 3, 0, 1),
        ("cab\nxcb\n#### abc", 1, 1 / 3, 0, 1),
        ("cab\nacb\nabc\n#### abc", 3, 3 / 4, 0, 1),
        ("cab\nacb\n#### abd", 2, 2 / 3, 0, 0),
        ("#### abc", 0, 0.0, 0, 1),
    ],
)
def test_measures_by_hand(answer: str, pml: int, pa: float, sm: int, fm: int) -> None:
    out = verify(answer, GOLD)
    first = -1 if sm else pml
    assert out.breakdown == {"pml": pml, "pa": pytest.approx(pa), "sm": sm, "fm": fm, "first_error": first}
    assert out.value == pytest.approx(fm + 0.5 * pa)
    assert out.verdict is (Verdict.CORRECT if fm else Verdict.WRONG)
    strict = verify(answer, GOLD, cfg=Config(correct="sequence"))
    assert strict.verdict is (Verdict.CORRECT if sm else Verdict.WRONG)


@pytest.mark.parametrize(
    "answer",
    [
        "4\n8\n#### 11",
        " 4 \n\n08\n####11",
        "think 4\n</think>4\n8\n#### 11",
        '{"intermediate": [4, 8], "final": 11}',
        'So: ```json\n{"intermediate": ["4", 8], "final": "11"}\n```',
    ],
)
def test_an_answer_is_read_in_both_forms_and_numbers_by_value(answer: str) -> None:
    assert verify(answer, NUMBERS).breakdown["sm"] == 1


@pytest.mark.parametrize(
    ("gold", "predicted", "same"),
    [
        (5, "5", True), (5, "+5", True), (5, 5, True), (5, True, False), (5, "5.0", False), (5, None, False),
        (5, [5], False), (7, "9" * 5000, False),
        ("3", 3, True), ("abc", "ABC", False), ("abc", ["abc"], False), ("", "(empty)", True), ("a", True, False),
        ([1, 2], "1,2", True), ([1, 2], "1, 2", True), ([1, 2], "2,1", False), ([1, 2], [1, "2"], True),
        ([1], [1, 1], False),
        ([], "(empty)", True), ([], [], True), ([], "1", False), (["a"], [["a"]], False), (["a", "b"], {"a": 1}, False),
    ],
)  # fmt: skip
def test_states_match_by_what_they_are(gold: object, predicted: object, same: bool) -> None:
    assert procedure.same(gold, predicted) is same


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        ("", Verdict.NO_ANSWER, "no_answer"),
        ("cab\nacb\nabc", Verdict.NO_ANSWER, "no_answer"),
        ("#### abc\nand so on", Verdict.NO_ANSWER, "no_answer"),
        ("#### abc\n#### abd", Verdict.NO_ANSWER, "no_answer"),
        ('{"intermediate": []}', Verdict.UNPARSABLE, "unparsed/prediction"),
        ('{"intermediate": 3, "final": "abc"}', Verdict.UNPARSABLE, "unparsed/prediction"),
        ("{" * 5000 + "}", Verdict.UNPARSABLE, "unparsed/prediction"),
        ('{"final": ' + "[" * 40_000 + "]" * 4 + "}", Verdict.UNPARSABLE, "unparsed/prediction"),
        ("x" * 60_000 + "\n#### abc", Verdict.UNPARSABLE, "limit/chars"),
        ("x\n" * 2000 + "#### abc", Verdict.UNPARSABLE, "limit/states"),
        ("\n" * 60_000, Verdict.NO_ANSWER, "no_answer"),
    ],
)
def test_what_cannot_be_read_is_worth_nothing(answer: str, verdict: Verdict, reason: str) -> None:
    out = verify(answer, GOLD)
    assert (out.value, out.verdict, out.reason) == (0.0, verdict, reason)
    assert out.breakdown == {"pml": 0, "pa": 0, "sm": 0, "fm": 0}


@pytest.mark.parametrize(
    "gold",
    [
        "7",
        "[]",
        "{",
        "[" * 10_000,
        '{"final": 1}',
        '{"intermediate": [1.5], "final": 1}',
        '{"intermediate": [], "final": {}}',
    ],
)
def test_a_gold_that_is_no_label_is_ours(gold: str) -> None:
    out = verify("#### 1", gold)
    assert (out.value, out.verdict, out.reason) == (None, Verdict.UNPARSABLE, "unparsed/gold")


def prompt(**columns: object) -> Prompt:
    return Prompt(id="p", messages=(), gold="abc", task="t", columns=columns)  # type: ignore[arg-type]


def test_states_may_stand_in_a_column_with_the_gold_as_the_last_one() -> None:
    group = base.answered(prompt(steps=("cab", "acb")), "cab\nacb\n#### abc")
    [out] = procedure.score(group, Config(column="steps"), None)  # type: ignore[arg-type]
    assert (out.value, out.breakdown["pml"]) == (1.5, 3)
    with pytest.raises(ConfigError, match="has no states in its column 'steps'"):
        procedure.score(base.answered(prompt(), "#### abc"), Config(column="steps"), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("cab\nacb\n#### abd", {2: 1 / 6, 6: 1 / 6}),
        ("cab\nabc\n#### abc", {2: 1 / 6}),
        ("cab\n#### acb", {2: 1 / 6, 11: 1 / 6}),
        # What the fourth and the fifth state take from two right ones of three stands on them.
        ("cab\nacb\nabb\nabd\n#### abe", {2: 1 / 6, 6: 1 / 6, 14: 1 / 4 - 1 / 3, 23: 1 / 5 - 1 / 4}),
    ],
)
def test_dense_credit_is_placed_where_states_end_and_adds_up(text: str, want: dict[int, float]) -> None:
    [sample] = base.answered(prompt(), text).trajectories
    sample = replace(sample, tokens=(0,) * len(text), ends=tuple(range(1, len(text) + 1)))
    label = json.dumps({"intermediate": ["cab", "acb"], "final": "abc"})
    group = replace(base.answered(replace(prompt(), gold=label), text), trajectories=(sample,))
    [out] = procedure.score(group, Config(final=0.0, dense=True), None)  # type: ignore[arg-type]
    assert {n: value for n, value in enumerate(out.per_token) if value} == pytest.approx(want)
    assert sum(out.per_token) == pytest.approx(out.value)
    assert Config(dense=True).places and not Config().places
    [plain] = procedure.score(group, Config(final=0.0), None)  # type: ignore[arg-type]
    assert plain.per_token == () and plain.value == out.value


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"final": -1}, "final"),
        ({"final": 0, "prefix": 0}, "final"),
        ({"correct": "all"}, "correct"),
        ({"max_states": 0}, "max_states"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)  # type: ignore[arg-type]
    assert caught.value.where == where
