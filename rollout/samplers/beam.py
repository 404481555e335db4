"""Step-level beam search: of all ways to take one more step, the most promising few are followed.

    B_0 = {x};    C_t = `expand` continuations by a step of each draft in B_t;    B_(t+1) = the `width` best of C_t

A draft that has come to its end leaves the beam and its place; the search ends when none is left or after `depth`
steps, and the answer is the ended draft with the highest score. Source: Liu et al. 2025 (arXiv 2502.07191); Snell et
al. 2024 (arXiv 2408.03314), beam search against a process reward model; with a width of 1 it is greedy step search.
Scores are those of whole beginnings, not sums over steps: a process reward model aggregates by itself
(`rewards.process`). Equal texts take one place. Cost: up to `width * expand` requests per step, each from the draft so
far, and as many scored drafts.

Known failure: a scorer of whole answers says nothing of beginnings, and all go alike; one that is taken in by a step is
never left again by a narrow beam, since everything else has gone by then.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.search import Draft, SearchTools
from rollout.samplers.common import check_positive, worth
from rollout.samplers.stepwise import StepConfig, different, finished, step


@dataclass(frozen=True, kw_only=True)
class Config(StepConfig):
    """How wide the beam is."""

    width: int = 4
    """Drafts that are followed."""
    expand: int = 4
    """Continuations of each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(width=self.width, expand=self.expand)


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The ended draft with the highest score."""
    beam, ended, width = [tools.root], list[tuple[float, Draft]](), cfg.width
    for depth in range(cfg.depth):
        count = cfg.expand if depth else cfg.width * cfg.expand
        grown = await tools.extend(beam, count=count, sampling=step(tools, cfg))
        ranked = await _ranked(tools, [draft for longer in grown for draft in longer], cfg)
        ended += [entry for entry in ranked[:width] if entry[1].done]
        beam = [draft for _, draft in ranked[:width] if not draft.done]
        width = len(beam)
        if not beam:
            break
    ended += await _ranked(tools, await finished(tools, beam), cfg)
    return max(ended, key=lambda entry: entry[0])[1]


async def _ranked(tools: SearchTools, drafts: list[Draft], cfg: Config) -> list[tuple[float, Draft]]:
    """Drafts with their scores, the best first, equal texts once."""
    shown = different(drafts)
    scored = await tools.score(shown, scorer=cfg.scorer)
    pairs = [(worth(s), draft) for s, draft in zip(scored, shown, strict=True)]
    return sorted(pairs, key=lambda pair: -pair[0])
