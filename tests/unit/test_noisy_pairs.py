"""Judgements that err as often as they are told to."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
from batches import group

from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Json, StopReason
from rlhf.data.build import noisy_pairs
from rlhf.data.build.noisy_pairs import Config, preferred
from rlhf.data.examples import pairs as examples

NOBODY: Any = None


def built(*groups: Group, **how: Any) -> list[dict[str, Json]]:
    return asyncio.run(noisy_pairs.build(groups, Config(**how), NOBODY))


def named(name: str, *values: float | None) -> Group:
    made = group(*values)
    return replace(made, trajectories=tuple(replace(t, id=f"{name}-{t.index}") for t in made.trajectories))


def test_chances_by_hand() -> None:
    assert preferred(1.0, 0.0, Config(flip=0.25)) == 0.75 and preferred(1.0, 0.0, Config(flip=0.0)) == 1.0
    s = 1 / (1 + math.exp(-0.5))
    assert preferred(1.0, 0.5, Config(flip=0.0, temperature=1.0)) == pytest.approx(s)
    assert preferred(1.0, 0.5, Config(flip=0.1, temperature=1.0)) == pytest.approx(0.9 * s + 0.1 * (1 - s))
    assert preferred(5.0, 0.0, Config(flip=0.5)) == 0.5


@pytest.mark.parametrize(("how", "want"), [({"flip": 0.25}, 0.25), ({"flip": 0.1, "temperature": 1.0}, 0.315)])
def test_so_many_pairs_are_flipped_and_the_same_ones_every_time(how: dict[str, float], want: float) -> None:
    groups = [named(f"q{n}", 0.0, 1.0) for n in range(800)]
    rows = built(*groups, **how)
    flipped = sum(bool(row["flipped"]) for row in rows)
    assert abs(flipped - 800 * want) < 4 * math.sqrt(800 * want * (1 - want)) and rows == built(*groups, **how)
    for row in rows:
        assert (row["chosen_value"], row["rejected_value"]) == ((0.0, 1.0) if row["flipped"] else (1.0, 0.0))
        assert str(row["chosen_id"])[-1] == ("0" if row["flipped"] else "1")


def test_without_errors_the_better_is_chosen_and_equal_or_ungraded_answers_are_in_no_pair() -> None:
    rows = built(group(0.5, 0.5, 0.2, None), flip=0.0, max_pairs=9)
    assert {(str(row["chosen_id"])[-1], str(row["rejected_id"])[-1]) for row in rows} == {("0", "2"), ("1", "2")}
    assert built(group(1.0, 1.0)) == []
    assert built(group(1.0, 0.0, stops=[StopReason.EOS, StopReason.LENGTH])) == []
    read = examples.read(rows[0], examples.Config(), where="", name="p")
    assert read.prompt.messages[0].content == "1+1="


@pytest.mark.parametrize("change", [{"flip": 0.6}, {"temperature": -1.0}, {"max_pairs": 0}])
def test_bad_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**change)
    assert caught.value.where == next(iter(change))
