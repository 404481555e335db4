"""Symbols moved about: each kind against another way to answer it, slips that are carried on."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

import pytest
import task_proofs

from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import symbolic
from rlhf.tasks.symbolic import Config


def asked(kind: str, **keys: Any) -> list[tuple[list[str], Prompt]]:
    prompts = task_proofs.prompts_of("symbolic", items=60, kinds=[kind], **keys)
    return [(p.messages[0].content.removesuffix("=").split("|")[1:], p) for p in prompts]


def test_last_letters() -> None:
    for (words,), prompt in asked("last_letters"):
        assert prompt.gold == "".join(word[-1] for word in words.split())


def test_coins() -> None:
    for (side, turns), prompt in asked("coin"):
        flips = turns.count("flips")
        assert (prompt.gold == side) is (flips % 2 == 0)


def test_shuffles() -> None:
    for (held, swaps, name), prompt in asked("shuffle", objects=5):
        has = dict(pair.split(":") for pair in held.split(","))
        names = [*has]
        for one, other in (map(int, swap.split("-")) for swap in swaps.split(",")):
            has[names[one - 1]], has[names[other - 1]] = has[names[other - 1]], has[names[one - 1]]
        assert prompt.gold == has[name]


def test_dates() -> None:
    months = set[str]()
    for (begin, days), prompt in asked("date"):
        found = date.fromisoformat(begin) + timedelta(days=int(days))
        assert prompt.gold == found.isoformat()
        months.add("over" if found.month != date.fromisoformat(begin).month else "within")
    assert months == {"over", "within"}


@pytest.mark.parametrize("kind", ["last_letters", "coin", "shuffle", "date"])
def test_golds_are_accepted_in_words_too_and_a_slip_is_carried_on(kind: str) -> None:
    found = task_proofs.prove("symbolic", items=50, kinds=[kind], style="words")
    assert (found.accepted, found.rejected) == (50, 50)
    noisy = [p for _, p in asked(kind, noise=0.4, min_steps=4)]
    assert any(p.solution != symbolic.reference(p) for p in noisy)
    last = [re.split("\n#### ", p.solution or "") for p in noisy if kind in ("last_letters", "coin")]
    assert all(before.split("\n")[-1] == answer for before, answer in last)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"kinds": ["cards"]}, "kinds"),
        ({"objects": 11}, "objects"),
        ({"noise": 2}, "noise"),
        ({"min_steps": 0}, "min_steps"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where
