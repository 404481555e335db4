"""Weighted majority: every sample votes for its final answer with its score.

    a = argmax over a of sum_i w_i 1[answer(y_i) = a],    w_i = (s_i - min s) / (max s - min s), 1 where all are equal

and of the samples with that answer the one with the highest score is taken. Source: Liu et al. 2025 (arXiv 2502.07191),
as their code has it: scores are scaled to [0, 1] within a prompt, samples without an answer have no vote. Li et al.
2022 (arXiv 2206.02336) sum a verifier's probabilities as they are. A sample that could not be scored weighs 0. Cost: n
requests, n scored answers.

Known failure: scaling within a prompt makes the worst of good samples weigh nothing, so that with two samples it is
best of two; and a wrong answer that is much more frequent than the right one needs a scorer that tells them far apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.core.search import Draft, Scored, ScoredConfig, SearchTools
from rollout.samplers.common import best, check_positive, clusters, worth


@dataclass(frozen=True, kw_only=True)
class Config(ScoredConfig):
    """How many samples vote, and who weighs them."""

    n: int = 8
    """Samples per answer."""

    def __post_init__(self) -> None:
        check_positive(n=self.n)


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The best sample with the answer of the greatest weight; the best of all where none has an answer."""
    [drafts] = await tools.extend([tools.root], count=cfg.n)
    scored = await tools.score(drafts, scorer=cfg.scorer)
    weights, found = _weights(scored), list(clusters([s.answer for s in scored]).values())
    if not found:
        return drafts[best(scored)]
    heaviest = max(found, key=lambda places: sum(weights[i] for i in places))
    return drafts[max(heaviest, key=lambda i: worth(scored[i]))]


def _weights(scored: Sequence[Scored]) -> list[float]:
    values = [s.value for s in scored if s.value is not None]
    if not values:
        return [1.0] * len(scored)
    low, span = min(values), max(values) - min(values)
    return [0.0 if s.value is None else (s.value - low) / span if span else 1.0 for s in scored]
