"""Tree of thoughts, depth first: the most promising step is followed to the end of an answer before the next is tried.

A node's `expand` continuations by a step are scored and ordered; the worst share `prune` of them, rounded down, is cut
off, and once an answer has ended also whatever scores below `threshold`. The search stops after `answers` ended ones,
or when nothing is left, and the ended answer with the greatest mean score over its steps is taken.

Source: Yao et al. 2023 (arXiv 2305.10601), algorithm 2, with the settings of Liu et al. 2025 (arXiv 2502.07191): the
worst 40 % are pruned, three paths end the search. Cost: about `answers * depth` nodes of `expand` requests and scored
drafts each, at most; one prompt asks for one node at a time, so that little can be batched.

Known failure: a first step that scores too well is followed to its end, and all its answers are found below it; the
threshold is in the scorer's own units and has to be set for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.search import Draft, SearchTools
from rollout.samplers.common import check_positive, worth
from rollout.samplers.stepwise import StepConfig, different, finished, step


@dataclass(frozen=True, kw_only=True)
class Config(StepConfig):
    """How much of the tree is visited."""

    expand: int = 3
    """Steps that a node grows by."""
    prune: float = 0.4
    """Share of these that is cut off, the worst."""
    threshold: float = 0.5
    """What scores below it is not followed any more once there is an answer."""
    answers: int = 3
    """Ended answers, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(expand=self.expand, answers=self.answers)
        if not 0 <= self.prune < 1:
            raise ConfigError("prune", f"{self.prune} is not in [0, 1)", fix="use 0.4, or 0 to cut nothing")
        if not math.isfinite(self.threshold):
            raise ConfigError("threshold", f"{self.threshold} is not finite", fix="use a score of the scorer")


@dataclass(frozen=True, slots=True)
class Path:
    """A draft, and the score that it had after each step."""

    draft: Draft
    scores: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """The ended answer with the greatest mean score; the first of all where nothing was ended."""
    waiting, ended = [Path(tools.root)], list[Path]()
    while waiting and len(ended) < cfg.answers:
        path = waiting.pop()
        if path.draft.done:
            ended.append(path)
        elif not ended or not path.scores or path.scores[-1] >= cfg.threshold:
            waiting += reversed(await _grown(tools, path, cfg))
    return max(ended, key=lambda path: path.mean).draft


async def _grown(tools: SearchTools, path: Path, cfg: Config) -> list[Path]:
    """The continuations of a path that are kept, the best first."""
    if len(path.scores) < cfg.depth:
        [grown] = await tools.extend([path.draft], count=cfg.expand, sampling=step(tools, cfg))
    else:
        grown = await finished(tools, [path.draft])
    shown = different(grown)
    scored = await tools.score(shown, scorer=cfg.scorer)
    found = [Path(draft, (*path.scores, worth(s))) for draft, s in zip(shown, scored, strict=True)]
    found.sort(key=lambda path: -path.scores[-1])
    return found[: len(found) - math.floor(cfg.prune * len(found))]
