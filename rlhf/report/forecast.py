"""What a learning curve will come to: a power law through the evaluations so far, and how far to trust it.

    y(x) = c - a x^(-b)      a >= 0, b > 0, low <= c <= high      x = 1 + (step - first step) / (second - first step)

For each b of a grid, a and c follow by least squares; the b with the smallest sum of squares counts. A curve that falls
has a = 0, its mean. The forecast is y at the step that is asked for. The last three trends, through all points, all but
the newest and all but the newest two, say how settled it is; the interval spans what they foresee, and two standard
errors of the residuals on either side.

Source: the pattern, and to look at how successive trends agree before one is believed, are those of Vilares Ferro et
al., "Modeling of learning curves with applications to POS tagging" (arXiv 2402.02515): they stop when a bound on the
convergence of the asymptotes is small, in whose place we take the change of the forecast itself. Domhan et al. 2015
stop runs whose chance to beat the best is small, by a mixture of eleven families of curves, of which this is one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 5
"""Points that three trends take, the first of which has three."""
_POWERS = np.geomspace(0.1, 3.0, 40)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a curve will come to at a later step."""

    value: float
    low: float
    high: float
    moved: float
    """Largest change of the forecast over the last three trends: how settled it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A fitted curve."""

    a: float
    b: float
    c: float
    error: float
    """Standard error of the residuals."""

    def at(self, x: float) -> float:
        return self.c - self.a * x**-self.b


def forecast(
    steps: Sequence[int], values: Sequence[float], *, at: int, bounds: tuple[float, float] = (0.0, 1.0)
) -> Forecast | None:
    """What the curve will be at a step; None for fewer than `FEWEST` points.

    Args:
        steps: ascending.
        values: at these, finite.
        at: the step that is asked for.
        bounds: what the values can become; those of an accuracy.
    """
    assert all(map(math.isfinite, values)), "a metric that is not finite is in no series"
    if len(steps) < FEWEST:
        return None
    x_N = 1 + (np.array(steps, dtype=np.float64) - steps[0]) / (steps[1] - steps[0])
    y_N, target = np.array(values, dtype=np.float64), 1 + (at - steps[0]) / (steps[1] - steps[0])
    trends = [fit(x_N[:count], y_N[:count], bounds=bounds) for count in range(len(steps) - 2, len(steps) + 1)]
    seen = [trend.at(target) for trend in trends]
    width = 2 * trends[-1].error
    return Forecast(
        value=seen[-1],
        low=max(bounds[0], min(seen) - width),
        high=min(bounds[1], max(seen) + width),
        moved=max(abs(one - other) for one, other in itertools.pairwise(seen)),
    )


def fit(x_N: Floats, y_N: Floats, *, bounds: tuple[float, float]) -> Trend:
    """The curve nearest to at least three points."""
    assert len(x_N) >= 3, "two points lie on many curves"
    found = [(_squares(x_N, y_N, *ac, b), *ac, b) for b in _POWERS.tolist() for ac in (_line(x_N**-b, y_N, bounds),)]
    squares, a, c, b = min(found)
    return Trend(a=a, b=b, c=c, error=math.sqrt(squares / max(1, len(x_N) - 3)))


def _line(u_N: Floats, y_N: Floats, bounds: tuple[float, float]) -> tuple[float, float]:
    """(a, c) of y = c - a u."""
    du, dy = u_N - u_N.mean(), y_N - y_N.mean()
    a = -float(du @ dy) / float(du @ du)
    if a <= 0:
        return 0.0, float(y_N.mean())
    c = float(y_N.mean()) + a * float(u_N.mean())
    if bounds[0] <= c <= bounds[1]:
        return a, c
    c = min(max(c, bounds[0]), bounds[1])
    return max(0.0, float(u_N @ (c - y_N)) / float(u_N @ u_N)), c


def _squares(x_N: Floats, y_N: Floats, a: float, c: float, b: float) -> float:
    return float(np.square(y_N - c + a * x_N**-b).sum())
