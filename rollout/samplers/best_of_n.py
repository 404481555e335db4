"""Best of n: the sample that the scorer likes most.

    y = argmax over y_1 … y_n ~ p(y | x) of s(x, y)

Source: Stiennon et al. 2020 (arXiv 2009.01325), Cobbe et al. 2021 (arXiv 2110.14168) with a verifier. Of equal scores
the first wins. Cost: n requests, n scored answers.

Known failure: where the scorer sometimes likes a wrong answer more than any right one, more samples find such answers
more often, and accuracy falls again beyond some n (Gao et al. 2022, arXiv 2210.10760; Huang et al. 2025, arXiv
2503.21878). `weighted_majority` does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.search import Draft, ScoredConfig, SearchTools
from rollout.samplers.common import best, check_positive


@dataclass(frozen=True, kw_only=True)
class Config(ScoredConfig):
    """How many samples, and who chooses."""

    n: int = 8
    """Samples per answer."""

    def __post_init__(self) -> None:
        check_positive(n=self.n)


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The sample with the highest score."""
    [drafts] = await tools.extend([tools.root], count=cfg.n)
    return drafts[best(await tools.score(drafts, scorer=cfg.scorer))]
