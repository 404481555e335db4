"""How well scores of steps find the first wrong one: the measure of ProcessBench (Zheng et al. 2024, arXiv 2412.06559).

A solution's prediction is its first step whose score lies below a threshold, or -1. Then

    erroneous   share of the solutions with an error in which exactly the first wrong step is predicted
    correct     share of those without in which -1 is
    F1          2 erroneous correct / (erroneous + correct), 0 where both are 0

per subset, and the plain mean of F1 over the subsets. The benchmark chooses the threshold of a process reward model
that gives numbers as the one with the highest F1 on its subset GSM8K, and uses it for all; of equal ones we take the
lowest. Without solutions of one kind its share is None, and so is F1. Called by the loops. Intervals are over
solutions, at the threshold as it is.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.report.stats import Floats, Interval, bounds, draws

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


def intervals(
    subsets: Mapping[str, Sequence[Scored]], *, threshold: float, seed: int, resamples: int = 2000
) -> dict[str, Interval]:
    """`<subset>/f1`, `/erroneous` and `/correct` of each subset that has them, and `f1`, the mean over the subsets.

    Args:
        subsets: solutions by the name of their subset.
        threshold: below which a score calls a step wrong.
        seed: of the resampling, in which each subset is drawn from by itself.
        resamples: number of bootstrap samples; those without solutions of a kind are left out of its share.
    """
    out: dict[str, Interval] = {}
    drawn: list[Floats] = []
    for place, (name, solutions) in enumerate(subsets.items()):
        own = measure(solutions, threshold=threshold)
        found = np.concatenate(
            [_resampled(solutions, w, threshold) for w in draws(len(solutions), seed=seed + place, resamples=resamples)]
        )
        shares = {"erroneous": own.erroneous, "correct": own.correct, "f1": own.f1}
        counts = {"erroneous": own.num_erroneous, "correct": own.num_correct, "f1": len(solutions)}
        for column, (key, n) in zip(found.T, counts.items(), strict=True):
            if (value := shares[key]) is not None:
                low, high = bounds(column, prompts=n)
                out[f"{name}/{key}"] = Interval(mean=value, low=float(low), high=float(high), n=n)
        drawn += [found[:, 2]] if own.f1 is not None else []
    if drawn:
        means = [out[f"{name}/f1"].mean for name in subsets if f"{name}/f1" in out]
        n = sum(len(solutions) for solutions in subsets.values())
        low, high = bounds(np.mean(drawn, axis=0), prompts=n)
        out["f1"] = Interval(mean=sum(means) / len(means), low=float(low), high=float(high), n=n)
    return out


def _resampled(solutions: Sequence[Scored], weight: Floats, threshold: float) -> Floats:
    """[R, 3] erroneous, correct and F1 where each solution counts as often as it was drawn."""
    hit = np.array([predict(s.scores, threshold=threshold) == s.first_error for s in solutions], dtype=np.float64)
    wrong = np.array([s.first_error != NONE for s in solutions], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        erroneous, correct = (weight @ (hit * kind) / (weight @ kind) for kind in (wrong, 1 - wrong))
        together = erroneous + correct
        f1 = np.where(together == 0, 0.0, 2 * erroneous * correct / together)
    return np.stack([erroneous, correct, f1], axis=1)


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
