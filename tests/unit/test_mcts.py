"""Tree search by visits: by hand on small trees, and better with more simulations where the scorer is right."""

from __future__ import annotations

import math

import pytest
from search_simulation import Engine, Policy, accuracy, prompts, run, sampler
from search_tree import Tree, found

from rlhf.core.errors import ConfigError
from rlhf.core.search import Draft
from rollout.samplers.mcts import Config, Node, Range, _puct

STEPS = {"": "ab", "a": "cd", "b": "ef"}


def test_puct_by_hand() -> None:
    parent = Node(Draft(name="", prompt_tokens=()), visits=9)
    child = Node(Draft(name="a", prompt_tokens=()), parent=parent, visits=3, total=1.5)
    cfg = Config(c_init=1.0, c_base=10.0)
    # Q = 0.5 on scores from 0 to 1; ln((9 + 10 + 1) / 10) = ln 2; sqrt(9) / (1 + 3) = 0.75.
    assert _puct(child, Range(low=0.0, high=1.0), cfg) == pytest.approx(0.5 + (1 + math.log(2)) * 0.75)
    assert _puct(child, Range(low=0.0, high=2.0), cfg) == pytest.approx(0.25 + (1 + math.log(2)) * 0.75)
    assert _puct(child, Range(), cfg) == pytest.approx((1 + math.log(2)) * 0.75)


def test_what_is_grown_below_a_step_decides_about_it() -> None:
    tree = Tree(steps=STEPS, scores={"a": 0.2, "b": 0.8, "be": 1.0, "bf": 0.6, "be.": 1.0})
    assert found("mcts", tree, simulations=2, expand=2) == "be."
    # First the root and then its better child; from that child on, its better child, which ends.
    assert tree.scored[:4] == ["a", "b", "be", "bf"]
    assert tree.grown[:4] == ["", "", "b", "b"]


def test_exploring_finds_what_greed_misses() -> None:
    scores = {"a": 0.6, "b": 0.5, "ac": 0.0, "ad": 0.0, "be": 1.0, "bf": 1.0, "be.": 1.0, "bf.": 1.0}
    assert found("mcts", Tree(steps=STEPS, scores=scores), simulations=6, expand=2).startswith("b")
    assert found("mcts", Tree(steps=STEPS, scores=scores), simulations=1, expand=2).startswith("a")


def test_missing_scores_are_the_least_and_the_last_move_ends_the_answer() -> None:
    scores = {"a": None, "b": -0.2, "c": -0.1, "c.": None}
    assert found("mcts", Tree(steps={"": "abc"}, scores=scores), simulations=1, expand=3) == "c."
    assert found("mcts", Tree(steps=STEPS, scores={"a": None, "b": None}), simulations=1, expand=2, depth=1) == "ac"
    with pytest.raises(ConfigError, match="c_init"):
        Config(c_init=-1.0)


def test_with_a_perfect_scorer_it_gets_better_with_what_is_tried() -> None:
    asked, policy = prompts(30), Policy(skill=0.5)
    few = run(sampler("mcts", scorer="scorer", simulations=1, expand=2), asked, engine=Engine(policy))
    many = run(sampler("mcts", scorer="scorer", simulations=4, expand=6), asked, engine=Engine(policy))
    assert accuracy(few) < 0.6 < 0.85 < accuracy(many) and few.cost.requests < many.cost.requests
