"""Depth-first search over thoughts: order, pruning, threshold and the end, on written trees."""

from __future__ import annotations

import pytest
from search_simulation import Engine, Policy, accuracy, prompts, run, sampler
from search_tree import Tree, found

from rlhf.core.errors import ConfigError
from rollout.samplers.tree_search import Config

STEPS = {"": "abc", "a": "d", "b": "e", "c": "f"}
SCORES = {"a": 0.5, "b": 0.9, "c": 0.7, "be": 0.2, "be.": 0.1, "cf": 0.8, "cf.": 0.9, "ad": 1.0, "ad.": 1.0}


def test_the_best_step_is_followed_first_and_the_best_mean_wins() -> None:
    tree = Tree(steps=STEPS, scores=SCORES)
    # b, be, be. has the mean 0.4; c, cf, cf. has 0.8; the worst of three, a, is cut off.
    assert found("tree_search", tree, expand=3) == "cf."
    assert list(dict.fromkeys(tree.grown)) == ["", "b", "be", "c", "cf"]


def test_nothing_is_cut_off_and_the_search_stops_with_enough_answers() -> None:
    assert found("tree_search", Tree(steps=STEPS, scores=SCORES), expand=3, prune=0.0) == "ad."
    assert found("tree_search", Tree(steps=STEPS, scores=SCORES), expand=3, answers=1) == "be."


def test_once_there_is_an_answer_what_scores_below_the_threshold_is_left() -> None:
    assert found("tree_search", Tree(steps=STEPS, scores=SCORES), expand=3, threshold=0.75) == "be."
    assert found("tree_search", Tree(steps=STEPS, scores={}), expand=3, threshold=0.75, depth=1) == "ad."


def test_settings_without_meaning() -> None:
    for keys in ({"prune": 1.0}, {"threshold": float("nan")}, {"answers": 0}, {"separator": ""}):
        with pytest.raises(ConfigError, match=next(iter(keys))):
            Config(**keys)


def test_with_a_perfect_scorer_it_gets_better_with_what_is_tried() -> None:
    asked, policy = prompts(30), Policy(skill=0.5)
    few = run(sampler("tree_search", scorer="scorer", expand=1), asked, engine=Engine(policy))
    many = run(sampler("tree_search", scorer="scorer", expand=6), asked, engine=Engine(policy))
    assert accuracy(few) < 0.3 < 0.85 < accuracy(many)
