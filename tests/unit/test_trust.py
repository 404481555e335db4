"""Rewards that only advise may add, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rewards.trust import check
from rlhf.core.component import Component
from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError
from rlhf.loops import settings

JUDGE: dict[str, Any] = {"name": "judge", "url": "http://h/v1", "model": "m", "criteria": {"clarity": "a"}}
MATH: dict[str, Any] = {"name": "math"}
COSINE: dict[str, Any] = {"name": "cosine_length", "max_length": 10}


def rewards(**trees: dict[str, Any]) -> dict[str, Component]:
    return {label: build_component("rewards", tree, label) for label, tree in trees.items()}


REFUSED = [
    ("rewards.taste", {"taste": JUDGE}, [], []),
    ("rewards.taste", {"taste": JUDGE, "math": MATH}, [], []),
    ("rubric.gates", {"math": MATH, "taste": JUDGE}, ["taste"], []),
    ("rubric.multiply", {"math": MATH, "taste": JUDGE}, [], ["taste"]),
    ("rewards.length.verifier", {"length": COSINE | {"verifier": JUDGE}}, [], []),
    ("rewards.length.verifier", {"math": MATH, "length": COSINE | {"verifier": JUDGE}}, [], []),
    ("rewards.length.verifier.verifier", {"length": COSINE | {"verifier": COSINE | {"verifier": JUDGE}}}, [], []),
]


@pytest.mark.parametrize(("where", "trees", "gates", "multiply"), REFUSED)
def test_a_judge_may_not_decide_unless_its_own_key_says_so(
    where: str, trees: dict[str, Any], gates: Sequence[str], multiply: Sequence[str]
) -> None:
    with pytest.raises(ConfigError, match="'judge' only advises") as caught:
        check(rewards(**trees), gates=gates, multiply=multiply)
    assert caught.value.where == where and "decides: true" in caught.value.fix
    check(rewards(**deciding(trees)), gates=gates, multiply=multiply)


def deciding(tree: dict[str, Any]) -> dict[str, Any]:
    """The same with `decides: true` at every judge."""
    below = {key: deciding(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return below | ({"decides": True} if tree.get("name") == "judge" else {})


def test_a_judge_may_add_and_verifiers_may_do_everything() -> None:
    check(rewards(math=MATH, taste=JUDGE), gates=[], multiply=[])
    check(rewards(math=MATH, length=COSINE), gates=["math"], multiply=["length"])


def test_the_config_of_a_run_is_checked() -> None:
    micro = Path(__file__).parents[2] / "configs" / "micro.yaml"
    judge = ["rewards.taste={name: judge, url: 'http://h/v1', model: m, criteria: {clarity: a}}"]
    assert list(settings.read(micro, ["rewards.math={}", *judge]).settings.rewards) == ["math", "taste"]
    with pytest.raises(ConfigError, match=r"^rewards\.taste"):
        settings.read(micro, judge)
    with pytest.raises(ConfigError, match=r"^rubric\.gates"):
        settings.read(micro, ["rewards.math={}", *judge, "rubric.gates=[taste]"])
