"""Subtle errors: which a step can take, what a policy is asked and answers, what passes, and what rules make."""

from __future__ import annotations

from random import Random

import pytest

from rlhf.data import edits

STEP = "So 3 + 5 = 8 apples."


@pytest.mark.parametrize(
    ("step", "kinds"),
    [
        (STEP, ["value", "substitution", "term", "operator", "swap"]),
        ("x = y", ["substitution", "term", "operator", "swap"]),
        ("There are 8 of them.", ["value"]),
        ("There are some.", ["words"]),
    ],
)
def test_which_kinds_a_step_can_take(step: str, kinds: list[str]) -> None:
    assert edits.fitting(step) == kinds and set(kinds) <= set(edits.KINDS)


def test_a_policy_is_shown_the_question_what_was_before_and_the_step() -> None:
    asked = {kind: edits.instruction(kind, question="How many?", before="First.", step=STEP) for kind in edits.KINDS}
    assert len(set(asked.values())) == len(edits.KINDS)
    for text in asked.values():
        assert all(part in text for part in ("How many?", "First.", STEP, "Do not say that there is a mistake."))


@pytest.mark.parametrize(
    ("said", "step"),
    [("So 9.\n```", "So 9."), ("So 9.\nYes.\n```\nI changed 8.", "So 9.\nYes."), ("So 9.", None), ("\n```", None)],
)
def test_what_a_policy_wrote_ends_with_the_fence(said: str, step: str | None) -> None:
    assert edits.answered(said) == step


@pytest.mark.parametrize(
    ("sentences", "shown"), [(0, "A. B. C\nD. E"), (1, "E"), (2, "D. E"), (4, "B. C\nD. E"), (9, "A. B. C\nD. E")]
)
def test_only_the_last_sentences_are_shown(sentences: int, shown: str) -> None:
    assert edits.tail("A. B. C\nD. E", sentences=sentences) == shown


def test_an_edit_that_says_so_gives_itself_away() -> None:
    assert edits.gives_itself_away("This is Wrong: 9", question="How many?")
    assert edits.gives_itself_away("but I made a mistake", question="How many?")
    assert not edits.gives_itself_away("so 9", question="How many?")
    assert not edits.gives_itself_away("the wrong one is 9", question="Which one is wrong?")


@pytest.mark.parametrize(
    ("text", "without"),
    [
        (r"so \boxed{9}.", "so 9."),
        (r"\boxed{\frac{1}{2}} or \boxed{3}", r"\frac{1}{2} or 3"),
        (r"\boxed{9", "9"),
        ("9", "9"),
    ],
)
def test_boxes_are_taken_off(text: str, without: str) -> None:
    assert edits.unboxed(text) == without


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [("abc", "abc", 1.0), ("abc", "abd", 2 / 3), ("kitten", "sitting", 4 / 7), ("", "a", 0.0), ("", "", 1.0)],
)
def test_similarity_is_one_less_the_distance_over_the_length(one: str, other: str, found: float) -> None:
    assert edits.similarity(one, other) == edits.similarity(other, one) == pytest.approx(found)


@pytest.mark.parametrize(
    ("kind", "step", "made"),
    [
        (
            "value",
            "3+5=8",
            {
                "1+5=8",
                "2+5=8",
                "4+5=8",
                "5+5=8",
                "3+3=8",
                "3+4=8",
                "3+6=8",
                "3+7=8",
                "3+5=6",
                "3+5=7",
                "3+5=9",
                "3+5=10",
            },
        ),
        ("substitution", "3+5=8", {"5+5=8", "8+5=8", "3+3=8", "3+8=8"}),
        ("term", "3+5-2=6", {"3-2=6", "3+5=6"}),
        ("operator", "3+5=8", {"3-5=8", "3*5=8", "3/5=8"}),
        ("swap", "3+5=8", {"5+3=8", "8+5=3", "3+8=5"}),
        ("value", "none", {None}),
        ("term", "8=8", {None}),
        ("operator", "8=8", {None}),
        ("swap", "8=8", {None}),
        ("substitution", "8=8", {None}),
        ("words", "some", {None}),
    ],
)
def test_rules_make_errors_of_every_kind_but_words(kind: str, step: str, made: set[str | None]) -> None:
    found = {edits.by_rule(kind, step, Random(seed)) for seed in range(200)}
    assert found == made


def test_a_rule_makes_the_same_error_again() -> None:
    assert edits.by_rule("value", STEP, Random(3)) == edits.by_rule("value", STEP, Random(3))
