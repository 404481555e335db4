"""Beam search on written trees, and with a perfect scorer: better the wider it is."""

from __future__ import annotations

from search_simulation import Engine, Policy, accuracy, prompts, run, sampler
from search_tree import Tree, found

STEPS = {"": "ab", "a": "cd", "b": "ef"}


def test_a_narrow_beam_loses_what_looks_worse_at_first() -> None:
    scores = {"a": 0.9, "b": 0.8, "ac": 0.1, "ad": 0.2, "be": 0.7, "be.": 1.0, "ad.": 0.3}
    assert found("beam", Tree(steps=STEPS, scores=scores), width=1, expand=2) == "ad."
    assert found("beam", Tree(steps=STEPS, scores=scores), width=2, expand=2) == "be."


def test_an_ended_draft_leaves_the_beam_and_can_still_win() -> None:
    steps = {"": ".a", "a": "b", "ab": "c"}
    tree = Tree(steps=steps, scores={".": 0.5, "a": 0.6, "ab": 0.7, "abc": 0.8, "abc.": 0.4})
    assert found("beam", tree, width=2, expand=1) == "."
    assert "." not in tree.grown, "it is not gone on with"
    better = Tree(steps=steps, scores={".": 0.5, "a": 0.6, "ab": 0.7, "abc": 0.8, "abc.": 0.9})
    assert found("beam", better, width=2, expand=1) == "abc."


def test_equal_texts_take_one_place_and_are_scored_once() -> None:
    tree = Tree(steps={"": "aab"}, scores={"a": 0.9, "b": 0.8, "a.": 0.1, "b.": 0.7})
    assert found("beam", tree, width=2, expand=2) == "b."
    assert tree.scored == ["a", "b", "a.", "b."]


def test_after_the_last_step_the_rest_is_said_in_one_go() -> None:
    tree = Tree(steps={"": "a", "a": "b", "ab": "c"}, scores={})
    assert found("beam", tree, width=1, expand=1, depth=2) == "abc"
    assert found("beam", Tree(steps={"": "a"}, scores={"a": None, "a.": None}), width=1, expand=1) == "a."


def test_with_a_perfect_scorer_it_gets_better_with_width_and_is_better_than_best_of_as_many() -> None:
    asked, policy = prompts(30), Policy(skill=0.5)
    single = accuracy(run(sampler("single"), asked, engine=Engine(policy)))
    narrow = run(sampler("beam", scorer="scorer", width=1, expand=2), asked, engine=Engine(policy))
    wide = run(sampler("beam", scorer="scorer", width=2, expand=4), asked, engine=Engine(policy))
    assert single < 0.15 < 0.25 < accuracy(narrow) < 0.55 < 0.9 < accuracy(wide)
    most = run(sampler("best_of_n", n=8, scorer="scorer"), asked, engine=Engine(policy))
    assert accuracy(most) < accuracy(wide)
