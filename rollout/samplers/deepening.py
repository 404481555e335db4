"""Iterative deepening: an answer may grow to a budget that is raised step by step, and is asked to think again each
time.

    y = "", B = `first`
    loop: go on with y until it has B tokens or ends; if it has ended, or has `sampling.max_tokens` tokens, stop;
          else y += `trigger`, B = ceil(`growth` * B)

With `on_end: reflect` an answer that ends early is taken up again as well, until the budgets are through: it costs
more, and makes data for learning to correct oneself. The triggers fall at `first`, `growth * first`, …, so there are
about log(max_tokens / first) / log(growth) of them, dense at the beginning. `samples` such answers are made, and the
most frequent final answer among them is taken, or with a scorer (`pick: best`) the one with the highest score.

Source: ID-Sampling, Chen et al. 2025 (arXiv 2502.05449), which combines it with best of n and voting and finds it
sensitive to `growth`; of the algorithm only descriptions were at hand. Tokens of triggers count to the room of the
answer; nobody sampled them, and their log-prob is 0. Cost: the tokens of the answers, and for each trigger a request
that goes on from the answer so far.

Known failure: a model that never learnt to correct itself is only disturbed; one that does may leave a right answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.sampling import Sampling
from rlhf.core.search import Draft, ScoredConfig, SearchTools
from rlhf.core.types import StopReason
from rollout.samplers.common import best, by_size, check_positive, clusters

ENDS = ("stop", "reflect")
PICKS = ("majority", "best")


@dataclass(frozen=True, kw_only=True)
class Config(ScoredConfig):
    """Budgets, trigger, and how many answers are made."""

    first: int = 128
    """Tokens up to the first trigger."""
    growth: float = 2.0
    """Factor from one budget to the next."""
    trigger: str = "\nWait! Maybe I made some mistakes. I need to rethink this.\n"
    """What is put into the answer at the end of a budget."""
    on_end: str = "stop"
    """What follows an answer that ends within its budget: `stop`, or `reflect`."""
    samples: int = 1
    """Answers that are made in this way."""
    pick: str = "majority"
    """Which of them is taken: `majority`, or the `best` by score."""

    def __post_init__(self) -> None:
        check_positive(first=self.first, samples=self.samples)
        if not (math.isfinite(self.growth) and self.growth > 1):
            raise ConfigError("growth", f"{self.growth} does not make budgets grow", fix="use 2")
        if not self.trigger:
            raise ConfigError("trigger", "is empty", fix="use a sentence that the model has learnt to follow")
        if self.on_end not in ENDS:
            raise ConfigError("on_end", f"'{self.on_end}' is not offered", fix=did_you_mean(self.on_end, ENDS))
        if self.pick not in PICKS:
            raise ConfigError("pick", f"'{self.pick}' is not offered", fix=did_you_mean(self.pick, PICKS))


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The picked one of the deepened answers."""
    room = tools.sampling.max_tokens
    [drafts] = await tools.extend([tools.root], count=cfg.samples, sampling=_until(tools, cfg.first))
    budget = cfg.first
    while budget < room:
        budget = math.ceil(cfg.growth * budget)
        drafts = [_thinking_again(tools, draft, cfg) for draft in drafts]
        drafts = await _grown(tools, drafts, min(budget, room))
    if len(drafts) == 1:
        return drafts[0]
    if cfg.pick == "best":
        return drafts[best(await tools.score(drafts, scorer=cfg.scorer))]
    found = by_size(clusters(await tools.answers(drafts)))
    return drafts[found[0][0]] if found else drafts[0]


async def _grown(tools: SearchTools, drafts: list[Draft], budget: int) -> list[Draft]:
    """Drafts that have grown to a budget; those that are there already stay."""
    out = list(drafts)
    by_room: dict[int, list[int]] = {}
    for place, draft in enumerate(drafts):
        if not draft.done and budget > len(draft.tokens):
            by_room.setdefault(budget - len(draft.tokens), []).append(place)
    for left, places in by_room.items():
        grown = await tools.extend([drafts[i] for i in places], sampling=_until(tools, left))
        for place, [longer] in zip(places, grown, strict=True):
            out[place] = longer
    return out


def _thinking_again(tools: SearchTools, draft: Draft, cfg: Config) -> Draft:
    if draft.done and (cfg.on_end == "stop" or draft.stop is not StopReason.EOS):
        return draft
    longer = tools.put(draft, cfg.trigger)
    # A trigger that leaves no room for what follows from it would only cut the answer off.
    return draft if longer.done else longer


def _until(tools: SearchTools, tokens: int) -> Sampling:
    return replace(tools.sampling, max_tokens=tokens)
