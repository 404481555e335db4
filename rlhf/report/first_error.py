"""How well scores of steps find the first wrong one: the measure of ProcessBench (Zheng et al. 2024, arXiv 2412.06559).

A solution's prediction is its first step whose score lies below a threshold, or -1. Then

    erroneous   share of the solutions with an error in which exactly the first wrong step is predicted
    correct     share of those without in which -1 is
    F1          2 erroneous correct / (erroneous + correct), 0 where both are 0

per subset, and the plain mean of F1 over the subsets. The benchmark chooses the threshold of a process reward model
that gives numbers as the one with the highest F1 on its subset GSM8K, and uses it for all; of equal ones we take the
lowest. Without solutions of one kind its share is None, and so is F1. Called by the loops.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NONE = -1
"""Stands for no wrong step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A solution with the score of each step. Example: `Scored(scores=(0.9, 0.2), first_error=1)`."""

    scores: tuple[float, ...]
    first_error: int
    """Counted from 0; -1 where all steps are right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstError:
    """What a threshold reaches on some solutions."""

    threshold: float
    erroneous: float | None
    correct: float | None
    num_erroneous: int
    num_correct: int

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both shares."""
        if self.erroneous is None or self.correct is None:
            return None
        together = self.erroneous + self.correct
        return 2 * self.erroneous * self.correct / together if together else 0.0


def predict(scores: Sequence[float], *, threshold: float) -> int:
    """The first step that a threshold calls wrong, or -1."""
    return next((n for n, score in enumerate(scores) if score < threshold), NONE)


def measure(solutions: Sequence[Scored], *, threshold: float) -> FirstError:
    """Both shares at a threshold."""
    wrong = [s for s in solutions if s.first_error != NONE]
    right = [s for s in solutions if s.first_error == NONE]

    def share(of: Sequence[Scored]) -> float | None:
        found = sum(predict(s.scores, threshold=threshold) == s.first_error for s in of)
        return found / len(of) if of else None

    return FirstError(
        threshold=threshold,
        erroneous=share(wrong),
        correct=share(right),
        num_erroneous=len(wrong),
        num_correct=len(right),
    )


def best_threshold(solutions: Sequence[Scored]) -> float:
    """The threshold with the highest F1; predictions change at the scores only, so one between any two is tried."""
    scores = sorted({score for solution in solutions for score in solution.scores})
    if not scores:
        return 0.5
    tried = [scores[0], *((low + high) / 2 for low, high in itertools.pairwise(scores)), scores[-1] + 1e-6]
    counts = _matches(solutions, tried)
    num_wrong = sum(s.first_error != NONE for s in solutions)
    num_right = len(solutions) - num_wrong

    def f1(found: tuple[int, int]) -> float:
        erroneous, correct = found[0] / max(1, num_wrong), found[1] / max(1, num_right)
        return 2 * erroneous * correct / (erroneous + correct) if erroneous + correct else 0.0

    return max(zip(tried, counts, strict=True), key=lambda entry: (f1(entry[1]), -entry[0]))[0]


def _matches(solutions: Sequence[Scored], thresholds: Sequence[float]) -> list[tuple[int, int]]:
    """Found errors and recognised right solutions at each of the rising thresholds, in one pass over both.

    A solution with its first error at step j is found between the score of j, not included, and the least score before
    it, included; one without errors up to its least score.
    """
    change_erroneous, change_correct = [0] * (len(thresholds) + 1), [0] * (len(thresholds) + 1)
    for solution in solutions:
        if solution.first_error == NONE:
            change_correct[0] += 1
            change_correct[_after(thresholds, min(solution.scores, default=float("inf")))] -= 1
            continue
        low = solution.scores[solution.first_error]
        high = min(solution.scores[: solution.first_error], default=float("inf"))
        if low < high:
            change_erroneous[_after(thresholds, low)] += 1
            change_erroneous[_after(thresholds, high)] -= 1
    out: list[tuple[int, int]] = []
    erroneous = correct = 0
    for wrong, right in zip(change_erroneous[:-1], change_correct[:-1], strict=True):
        erroneous, correct = erroneous + wrong, correct + right
        out.append((erroneous, correct))
    return out


def _after(thresholds: Sequence[float], score: float) -> int:
    """How many of the rising thresholds do not lie above a score."""
    return bisect.bisect_right(thresholds, score)


def mean_f1(subsets: Mapping[str, FirstError]) -> float | None:
    """The plain mean over the subsets that have an F1."""
    found = [subset.f1 for subset in subsets.values() if subset.f1 is not None]
    return sum(found) / len(found) if found else None
