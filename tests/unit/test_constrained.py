"""Constrained answers: the patterns of each kind, free text before them, and settings that mean nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from search_simulation import MARK, Engine, Policy, prompts, run, sampler

from rlhf.core.errors import ConfigError
from rollout.samplers.constrained import Config, form

ASKED = prompts(4)


@pytest.mark.parametrize(
    ("keys", "right", "wrong"),
    [
        ({"kind": "choice", "choices": ["a.b", "no (2)"]}, ["a.b", "no (2)"], ["axb", "no 2", ""]),
        ({}, ["0", "-17", "123456"], ["", "-", "01", "1.0"]),
        ({"digits": 2}, ["9", "-99"], ["100"]),
        ({"digits": 1}, ["9", "0"], ["10"]),
        ({"kind": "regex", "pattern": "#+ [0-9]"}, ["## 1"], ["1"]),
        ({"kind": "length", "min_chars": 2, "max_chars": 3}, ["ab", "a\nb"], ["a", "abcd"]),
        ({"kind": "length", "min_chars": 2}, ["ab", "a" * 99], ["a"]),
    ],
)
def test_forms(keys: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    pattern = form(Config(**keys))
    assert all(re.fullmatch(pattern, text) for text in right), pattern
    assert not any(re.fullmatch(pattern, text) for text in wrong), pattern


def test_the_whole_answer_has_the_form() -> None:
    found = run(sampler("constrained"), ASKED, engine=Engine())
    assert all(re.fullmatch("-?[0-9]+", group.trajectories[0].text) for group in found.groups)
    assert found.cost.requests == 4


def test_behind_free_text_the_form_begins() -> None:
    found = run(sampler("constrained", after=MARK), ASKED, engine=Engine(Policy(skill=1.0)))
    for group in found.groups:
        free, mark, answer = group.trajectories[0].text.partition(MARK)
        assert free.count("=") == 4 and mark and re.fullmatch("[0-9]+", answer)
    assert found.cost.requests == 8


def test_characters_that_the_policy_leaves_out_are_put_there() -> None:
    found = run(sampler("constrained", after="so: "), ASKED, engine=Engine(Policy(skill=1.0)))
    for group in found.groups:
        assert re.search(r"#### \d+so: \d+$", group.trajectories[0].text)
        assert group.trajectories[0].logprobs.count(0.0) == 4, "nobody sampled them"


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "choise"},
        {"choices": [], "kind": "choice"},
        {"choices": ["a", ""], "kind": "choice"},
        {"pattern": "", "kind": "regex"},
        {"pattern": "(a", "kind": "regex"},
        {"digits": -1},
        {"max_chars": 2, "min_chars": 3},
    ],
)
def test_settings_without_meaning(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(keys))):
        Config(**keys)
