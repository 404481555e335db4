"""How often the intervals of an evaluation cover the truth, in simulated worlds where it is known.

python benchmarks/coverage.py        # two tables in Markdown; docs/evaluation.md shows them

Prompts have unequal difficulty, and several samples each. Means: accuracies of four samples per prompt, difficulties
from a Beta distribution, bounds by plain percentiles, by expanded ones, and as a share. Confidences: logits with a
part that samples of a prompt share; `honest` ones are right as often as they say, `too sure` ones less often. The truth
of a confidence measure is that of 200,000 answers.
"""

from __future__ import annotations

import numpy as np

from rlhf.report.calibration import ESTIMATORS, estimate
from rlhf.report.stats import Floats, bounds, draws

MEANS, CONFIDENCES, RESAMPLES = 4000, 400, 400
WORLDS = {"honest": (1.0, 0.0), "too sure": (0.6, 0.4)}


def main() -> None:
    print("| prompts | accuracy 10 % | 30 % | 60 % | 90 % |\n|---|---|---|---|---|")
    for prompts in (10, 30, 100, 300):
        cells = [means(prompts, level) for level in (0.1, 0.3, 0.6, 0.9)]
        print(f"| {prompts} | {' | '.join(cells)} |", flush=True)
    print("\n| measure | " + " | ".join(f"{w}, {n} prompts" for w in WORLDS for n in (50, 200)) + " |")
    print("|---" * (1 + 2 * len(WORLDS)) + "|")
    for name in ESTIMATORS:
        cells = [confidences(name, *WORLDS[w], prompts=n) for w in WORLDS for n in (50, 200)]
        print(f"| `{name}` | {' | '.join(cells)} |", flush=True)


def means(prompts: int, level: float) -> str:
    """Coverage of plain and of expanded percentiles, and of those with a prompt at either end."""
    rng = np.random.default_rng(0)
    values_TP = rng.binomial(4, rng.beta(2 * level, 2 * (1 - level), size=(MEANS, prompts))) / 4
    drawn = np.concatenate(list(draws(prompts, seed=1, resamples=RESAMPLES)))
    resampled_RT = drawn @ values_TP.T / prompts
    plain = np.quantile(resampled_RT, [0.025, 0.975], axis=0)
    expanded = bounds(resampled_RT, prompts=prompts)
    drawn = np.concatenate(list(draws(prompts, seed=1, resamples=RESAMPLES, ends=True)))
    with_ends_TP = np.concatenate([values_TP, np.zeros((MEANS, 1)), np.ones((MEANS, 1))], axis=1)
    share = bounds(drawn @ with_ends_TP.T / prompts, prompts=prompts)
    found = ((low <= level) & (high >= level) for low, high in (plain, expanded, share))
    return " → ".join(f"{covers.mean():.1%}" for covers in found)


def confidences(name: str, slope: float, shift: float, *, prompts: int) -> str:
    """Coverage of a confidence measure's interval, of two answers per prompt."""
    rng = np.random.default_rng(0)
    (p,), (y,) = world(rng, 1, 100_000, slope, shift)
    truth, covered = float(ESTIMATORS[name](p, y, np.ones_like(p))), 0
    if name == "calibration_error" and (slope, shift) == WORLDS["honest"]:
        truth = 0.0
    owner = np.arange(prompts).repeat(2).tolist()
    for trial, (p, y) in enumerate(zip(*world(rng, CONFIDENCES, prompts, slope, shift), strict=True)):
        found = estimate(
            ESTIMATORS[name],
            confidence=p.tolist(),
            right=y.astype(bool).tolist(),
            prompt=owner,
            seed=trial,
            resamples=RESAMPLES,
        )
        covered += found is not None and found.low <= truth <= found.high
    return f"{covered / CONFIDENCES:.1%}"


def world(rng: np.random.Generator, trials: int, prompts: int, slope: float, shift: float) -> tuple[Floats, Floats]:
    """([trials, answers] confidences, and whether each is right)."""
    lean = rng.normal(size=(trials, prompts, 1)) + rng.normal(size=(trials, prompts, 2))
    right = rng.uniform(size=lean.shape) < 1 / (1 + np.exp(shift - slope * lean))
    return (1 / (1 + np.exp(-lean))).reshape(trials, -1), right.reshape(trials, -1).astype(np.float64)


if __name__ == "__main__":
    main()
