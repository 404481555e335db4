"""Easy to hard: which prompts are in at which point of a stage."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import Known
from rlhf.core.types import Json, Prompt
from rlhf.data.curricula import easy_to_hard
from rlhf.data.curricula.easy_to_hard import Config


def known(*levels: Json, rates: Sequence[float | None] | None = None) -> list[Known]:
    prompts = [
        Prompt(id=f"p{n}", messages=(), gold="1", task="sums", columns={"level": level})
        for n, level in enumerate(levels)
    ]
    return [Known(prompt=p, group="", rate=r) for p, r in zip(prompts, rates or [None] * len(prompts), strict=True)]


def weights(found: list[Known], done: float, **settings: float | str) -> list[float]:
    return easy_to_hard.weights(found, Config(**{"column": "level"} | settings), groups={}, done=done)  # type: ignore[arg-type]


def test_the_share_follows_the_root_of_the_way() -> None:
    """With start 0.6 and reach 0.5, c(0.25)^2 = 0.36 + 0.64 / 2 = 0.68, whose root is 0.825."""
    found = known(*range(100, 0, -1))
    for done, share in ((0.0, 60), (0.25, 83), (0.5, 100), (1.0, 100)):
        out = weights(found, done, start=0.6)
        assert out == [0.0] * (100 - share) + [1.0] * share
    assert weights(known(3, 1, 2), 0.0, start=0.01) == [0.0, 1.0, 0.0]


def test_levels_in_words_and_equal_ones_in_the_order_of_the_task() -> None:
    assert weights(known("Level 5", "Level 1", " Level 1 ", 0.5), 0.0, start=0.5) == [0.0, 1.0, 0.0, 1.0]


def test_without_a_column_it_goes_by_wrong_answers() -> None:
    found = known(0, 0, 0, 0, rates=[0.2, 1.0, 0.0, 0.9])
    assert weights(found, 0.0, start=0.5, column="") == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("level", [None, "hard", [1], float("nan"), float("inf"), True, ""])
def test_a_prompt_that_does_not_say_how_hard_it_is(level: Json) -> None:
    with pytest.raises(DataError, match=r"^prompt p1: its column 'level' says .*\n  fix: name a column"):
        weights(known(1, level), 0.0)
    with pytest.raises(DataError, match=r"^prompt p0: nothing says .*\n  fix: set curriculum\.profile"):
        weights(known(1, level), 0.0, column="")


@pytest.mark.parametrize("settings", [{"start": 0.0}, {"start": 1.1}, {"reach": 0.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"^{next(iter(settings))}: .*\n  fix: "):
        Config(**settings)  # type: ignore[arg-type]
