"""ProcessBench's measure in closed form, and the threshold against trying all of them."""

from __future__ import annotations

import random

import pytest

from rlhf.report.first_error import Scored, best_threshold, intervals, mean_f1, measure, predict


@pytest.mark.parametrize(
    ("scores", "threshold", "want"),
    [((0.9, 0.4, 0.1), 0.5, 1), ((0.9, 0.5), 0.5, -1), ((0.1, 0.9), 0.5, 0), ((), 0.5, -1)],
)
def test_the_first_step_below_the_threshold_is_predicted(
    scores: tuple[float, ...], threshold: float, want: int
) -> None:
    assert predict(scores, threshold=threshold) == want


SOLUTIONS = [
    Scored(scores=(0.9, 0.2, 0.1), first_error=1),  # found
    Scored(scores=(0.9, 0.8, 0.1), first_error=1),  # found too late
    Scored(scores=(0.3, 0.2), first_error=1),  # found too early
    Scored(scores=(0.9, 0.9), first_error=0),  # not found
    Scored(scores=(0.9, 0.8), first_error=-1),  # right
    Scored(scores=(0.9, 0.4), first_error=-1),  # taken for wrong
]


def test_f1_is_the_harmonic_mean_of_both_shares() -> None:
    found = measure(SOLUTIONS, threshold=0.5)
    assert (found.erroneous, found.correct, found.num_erroneous, found.num_correct) == (1 / 4, 1 / 2, 4, 2)
    assert found.f1 == pytest.approx(2 * 0.25 * 0.5 / 0.75)


def test_without_one_kind_there_is_no_f1_and_with_none_right_it_is_zero() -> None:
    assert measure(SOLUTIONS[:4], threshold=0.5).f1 is None
    assert measure(SOLUTIONS[4:], threshold=0.5).f1 is None
    assert measure([SOLUTIONS[3], SOLUTIONS[5]], threshold=0.5).f1 == 0.0


def test_subsets_count_alike() -> None:
    one, other = measure(SOLUTIONS, threshold=0.5), measure([SOLUTIONS[0], SOLUTIONS[4]], threshold=0.5)
    assert other.f1 == 1.0 and one.f1 is not None
    assert mean_f1({"gsm8k": one, "math": other}) == pytest.approx((one.f1 + 1) / 2)
    assert mean_f1({"gsm8k": measure(SOLUTIONS[:1], threshold=0.5)}) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_best_threshold_is_that_of_trying_every_one(seed: int) -> None:
    rng = random.Random(seed)
    solutions = [
        Scored(
            scores=tuple(rng.choice((0.1, 0.2, 0.25, 0.5, rng.random())) for _ in range(size)),
            first_error=rng.randrange(-1, size),
        )
        for size in (rng.randrange(1, 6) for _ in range(12))
    ]
    values = sorted({score for s in solutions for score in s.scores})
    tried = [0.0, *values, *(v + 1e-9 for v in values)]
    best = max(measure(solutions, threshold=t).f1 or 0.0 for t in tried)
    assert (measure(solutions, threshold=best_threshold(solutions)).f1 or 0.0) == pytest.approx(best)


def test_no_scores_give_the_middle() -> None:
    assert best_threshold([Scored(scores=(), first_error=-1)]) == 0.5


def test_shares_have_intervals_over_solutions_and_the_mean_over_subsets() -> None:
    found = intervals({"gsm8k": SOLUTIONS * 10, "math": [SOLUTIONS[0], SOLUTIONS[4]] * 10}, threshold=0.5, seed=0)
    one = measure(SOLUTIONS, threshold=0.5)
    assert found["gsm8k/erroneous"].mean == one.erroneous and found["gsm8k/erroneous"].n == 40
    assert found["gsm8k/correct"].mean == one.correct and found["gsm8k/correct"].n == 20
    assert found["gsm8k/f1"].mean == one.f1
    assert found["gsm8k/f1"].low < found["gsm8k/f1"].mean < found["gsm8k/f1"].high
    assert (found["math/f1"].low, found["math/f1"].high) == (1.0, 1.0)
    assert found["f1"].mean == pytest.approx((found["gsm8k/f1"].mean + 1) / 2)
    assert found["f1"].high - found["f1"].low == pytest.approx(
        (found["gsm8k/f1"].high - found["gsm8k/f1"].low) / 2, rel=0.1
    )
    alone = intervals({"right": SOLUTIONS[4:]}, threshold=0.5, seed=0)
    assert list(alone) == ["right/correct"]
