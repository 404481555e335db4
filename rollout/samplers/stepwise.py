"""What samplers that build an answer step by step share: how long a step is, and how it is asked for.

A step ends with the separator, or where it has no tokens left; then something can follow. The tokens of the last step
may hold characters behind the separator: what was sampled is kept as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling
from rlhf.core.search import Draft, ScoredConfig, SearchTools
from rollout.samplers.common import check_positive


@dataclass(frozen=True, kw_only=True)
class StepConfig(ScoredConfig):
    """What the config of every sampler has that goes step by step."""

    separator: str = "\n"
    """What ends a step."""
    step_tokens: int = 128
    """Tokens of a step, at most."""
    depth: int = 16
    """Steps of an answer, at most; whatever is left to say then is said in one go."""

    def __post_init__(self) -> None:
        check_positive(step_tokens=self.step_tokens, depth=self.depth)
        if not self.separator:
            raise ConfigError("separator", "is empty", fix="use a line break, or two for paragraphs")


def step(tools: SearchTools, cfg: StepConfig) -> Sampling:
    """The loop's sampling, for one step."""
    return replace(tools.sampling, max_tokens=cfg.step_tokens, stop=[cfg.separator])


def different(drafts: Sequence[Draft]) -> list[Draft]:
    """Drafts without those that say the same as an earlier one."""
    first: dict[tuple[str, bool], Draft] = {}
    for draft in drafts:
        first.setdefault((draft.text, draft.done), draft)
    return list(first.values())


async def finished(tools: SearchTools, drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts with the rest of their answers."""
    return [longer for [longer] in await tools.extend(drafts)]
