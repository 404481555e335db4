"""Solution-cluster re-ranking: samples are grouped by their final answer, and the scorer chooses between the largest
groups only.

    best    argmax of s over the samples in the `top` largest clusters              (RR.Top-K)
    sum     the cluster among these with the greatest sum of s, its best sample     (W.RR on top-K)

Source: Liu et al. 2023 (arXiv 2310.10047): voting leaves out what was come to by chance before the scorer can be taken
in by it, and only part of the samples is scored, which is where the cost goes. The paper keeps 8 clusters of 64
samples. Its scores are probabilities; of scores below 0 the sum would prefer small clusters, so they are shifted to
begin at 0. Cost: n requests; the samples in the `top` largest clusters are scored.

Known failure: a right answer that is rare is left out before anybody looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.search import Draft, ScoredConfig, SearchTools
from rollout.samplers.common import by_size, check_positive, clusters, worth

PICKS = ("sum", "best")


@dataclass(frozen=True, kw_only=True)
class Config(ScoredConfig):
    """How many samples, how many clusters, and how one of them is picked."""

    n: int = 8
    """Samples per answer."""
    top: int = 3
    """Largest clusters that the scorer chooses between."""
    pick: str = "sum"
    """`sum` of the scores of a cluster, or the `best` sample."""

    def __post_init__(self) -> None:
        check_positive(n=self.n, top=self.top)
        if self.pick not in PICKS:
            raise ConfigError("pick", f"'{self.pick}' is not offered", fix=did_you_mean(self.pick, PICKS))


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The picked sample; the first of all where none has an answer."""
    [drafts] = await tools.extend([tools.root], count=cfg.n)
    kept = by_size(clusters(await tools.answers(drafts)))[: cfg.top]
    places = [place for cluster in kept for place in cluster]
    if not places:
        return drafts[0]
    scored = await tools.score([drafts[i] for i in places], scorer=cfg.scorer)
    values = {place: worth(s) for place, s in zip(places, scored, strict=True)}
    if cfg.pick == "sum":
        low = min([s.value for s in scored if s.value is not None], default=0.0)
        shift = min(low, 0.0)
        kept = [max(kept, key=lambda cluster: sum(max(values[i] - shift, 0.0) for i in cluster))]
    return drafts[max((i for cluster in kept for i in cluster), key=lambda i: values[i])]
