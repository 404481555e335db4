"""Self-consistency: the final answer that most samples come to.

    a = argmax over a of sum_i 1[answer(y_i) = a],    y_1 … y_n ~ p(y | x)

Source: Wang et al. 2022 (arXiv 2203.11171). The final answer is what the first reward reads in a sample; samples in
which it finds none have no vote, and of equal votes the answer wins that was seen first. The first sample with the
winning answer is the answer. Cost: n requests, nothing is scored.

Known failure: where the wrong answers agree, for a mistake that is likelier than the right way, more samples only make
the wrong answer surer; and an answer in free text is rarely given twice, so that the first sample wins.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.search import Draft, SearchTools
from rollout.samplers.common import by_size, check_positive, clusters


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many samples vote."""

    n: int = 8
    """Samples per answer."""

    def __post_init__(self) -> None:
        check_positive(n=self.n)


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The first sample with the answer of the most; the first of all where none has an answer."""
    [drafts] = await tools.extend([tools.root], count=cfg.n)
    found = by_size(clusters(await tools.answers(drafts)))
    return drafts[found[0][0]] if found else drafts[0]
