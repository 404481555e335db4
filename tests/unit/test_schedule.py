"""Learning-rate schedules against their closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlhf.core.errors import ConfigError
from rlhf.learner.schedule import Config, share


def shares(total: int, **settings: Any) -> list[float]:
    return [share(Config(**settings), update=update, total=total) for update in range(total + 1)]


def test_constant() -> None:
    assert shares(3) == [1, 1, 1, 1]
    assert shares(4, warmup_updates=4) == [0.25, 0.5, 0.75, 1, 1]


def test_linear_reaches_its_final_share_after_the_last_update() -> None:
    assert shares(4, name="linear") == [1, 0.75, 0.5, 0.25, 0]
    assert shares(6, name="linear", warmup_updates=2, final_share=0.2) == pytest.approx([0.5, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_cosine() -> None:
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done / 8)) for done in range(9)]
    assert shares(10, name="cosine", warmup_updates=2, final_share=0.1) == pytest.approx([0.5, 1, *expected])
    assert shares(2, name="cosine") == pytest.approx([1, 0.5, 0])


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_past_the_end_it_stays_where_it_ended(name: str) -> None:
    assert share(Config(name=name, final_share=0.3), update=50, total=10) == pytest.approx(0.3)


def test_a_warm_up_as_long_as_the_stage_never_divides_by_zero() -> None:
    assert shares(2, name="linear", warmup_updates=2) == [0.5, 1, 1]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"name": "cosin"}, "name"), ({"warmup_updates": -1}, "warmup_updates"), ({"final_share": 1.5}, "final_share")],
)
def test_impossible_values_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == field
    if field == "name":
        assert "did you mean 'cosine'" in str(caught.value)
