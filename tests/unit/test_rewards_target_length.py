"""Target length: Ruler's intervals, and those of other targets."""

from __future__ import annotations

import pytest
from shaping import NoTools, answers

from rewards.target_length import Config, count, score
from rlhf.core.errors import ConfigError
from rlhf.core.types import Verdict

TABLE = {
    10: ((0, 20), (0, 20)),
    30: ((20, 40), (20, 40)),
    50: ((40, 60), (40, 60)),
    80: ((70, 90), (60, 100)),
    150: ((130, 170), (100, 200)),
    300: ((280, 320), (200, 400)),
    500: ((450, 550), (400, 600)),
    700: ((630, 770), (600, 800)),
}


def values(target: object, *words: int, **settings: float) -> list[float | None]:
    group = answers(["w " * n for n in words], columns={"target_words": target})  # type: ignore[dict-item]
    return [out.value for out in score(group, Config(**settings), NoTools())]  # type: ignore[arg-type]


@pytest.mark.parametrize("target", TABLE)
def test_ruler_s_intervals(target: int) -> None:
    (low, high), (wide_low, wide_high) = TABLE[target]
    assert values(target, low + 1, high, target) == [1.0] * 3
    outside = {low: low > wide_low, high + 1: high < wide_high}
    assert values(target, *outside) == [0.5 if flexible else 0.0 for flexible in outside.values()]
    assert values(target, wide_low, wide_high + 1) == [0.0, 0.0]


def test_more_than_a_number() -> None:
    assert values(">800", 800, 801, 5000) == [0.0, 1.0, 1.0]
    assert values("> 5", 5, 6) == [0.0, 1.0]


def test_other_targets_have_intervals_around_them() -> None:
    assert values(20, 15, 16, 18, 19, 22, 23, 25, 26) == [0.0, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5, 0.0]
    assert values("20", 16, precise=0.3, flexible=0.3) == [1.0]
    assert values(20, 24, flexible_value=0.2) == [0.2]


def test_a_task_of_length_is_judged_by_it() -> None:
    assert values(10, 15) == [1.0] and values(10, 10, 15, precise=0.01, tables=False) == [1.0, 0.0]
    outs = score(answers(["a b c", "a b"]), Config(target=3, decides=True), NoTools())
    assert [out.verdict for out in outs] == [Verdict.CORRECT, Verdict.WRONG]
    assert score(answers(["a b c"]), Config(target=3), NoTools())[0].verdict is Verdict.SKIPPED


def test_one_target_for_every_prompt() -> None:
    [out] = score(answers(["a b c"]), Config(target=3), NoTools())
    assert out.value == 1.0 and out.breakdown == {"words": 3.0, "precise": 1.0, "flexible": 1.0}


def test_words_are_runs_of_letters_digits_and_underscores() -> None:
    assert count("It's 3.5 naïve snake_case, 世界!") == 7


@pytest.mark.parametrize("columns", [{}, {"target_words": "many"}, {"target_words": 0}, {"target_words": None}])
def test_a_prompt_without_target_is_an_error_that_names_its_columns(columns: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="has no target in its column 'target_words'") as caught:
        score(answers(["a"], columns=columns), Config(), NoTools())  # type: ignore[arg-type]
    assert caught.value.where == "column"


@pytest.mark.parametrize(
    ("settings", "where"),
    [({"target": -1}, "target"), ({"flexible_value": 2.0}, "flexible_value"), ({"precise": 0.5}, "precise")],
)
def test_bad_settings_are_refused(settings: dict[str, float], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)  # type: ignore[arg-type]
    assert caught.value.where == where
