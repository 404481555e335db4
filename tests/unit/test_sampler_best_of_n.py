"""Best of n takes the highest score, and with a scorer that can be taken in gets worse with too many samples."""

from __future__ import annotations

from random import Random

import pytest
from search_table import Candidate, chosen

from rlhf.core.errors import ConfigError
from rollout.samplers.best_of_n import Config


@pytest.mark.parametrize(
    ("scores", "place"),
    [
        ([0.2], 0),
        ([0.2, 0.9, 0.5], 1),
        ([0.9, 0.9, 0.5], 0),
        ([None, -5.0, None], 1),
        ([None, None], 0),
        ([0.0, -0.0, 1e-300], 2),
    ],
)
def test_the_highest_score_wins_and_of_equals_the_first(scores: list[float | None], place: int) -> None:
    assert chosen("best_of_n", [("a", score) for score in scores]) == place


def test_no_sample_is_no_search() -> None:
    with pytest.raises(ConfigError, match="n: 0 is too few"):
        Config(n=0)


def share_right(name: str, n: int, *, taken_in: float) -> float:
    """How often a sampler takes a right answer, of 200 prompts: 45 % of samples are right, wrong ones scatter."""
    rng, right = Random(0), 0
    for _ in range(200):
        drawn: list[Candidate] = []
        for _ in range(n):
            answer = "7" if rng.random() < 0.45 else str(rng.randint(100, 999))
            hacked = answer != "7" and rng.random() < taken_in
            drawn.append((answer, (answer == "7") + rng.gauss(0.0, 0.5 if taken_in else 0.0) + 3.0 * hacked))
        right += drawn[chosen(name, drawn)][0] == "7"
    return right / 200


def test_with_a_perfect_scorer_more_samples_are_better_for_all() -> None:
    for name in ("best_of_n", "weighted_majority", "cluster_rerank"):
        found = [share_right(name, n, taken_in=0.0) for n in (1, 4, 16)]
        assert found == sorted(found) and found[0] < 0.55 < 0.99 < found[-1], name


def test_with_one_that_is_taken_in_best_of_n_has_its_peak_and_weighted_majority_none() -> None:
    best = [share_right("best_of_n", n, taken_in=0.03) for n in (1, 6, 96)]
    votes = [share_right("weighted_majority", n, taken_in=0.03) for n in (1, 6, 96)]
    assert best[0] + 0.2 < best[1] > best[2] + 0.3, best
    assert votes == sorted(votes) and votes[-1] > 0.98, votes
