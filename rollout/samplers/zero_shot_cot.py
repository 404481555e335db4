"""Zero-shot chain of thought: the policy is made to think first, and then to say its answer.

    z ~ p(. | x, `think`);    a ~ p(. | x, `think`, z, `extract`)

Both texts are put into the answer, so that it reads `think`, z, `extract`, a, and the verifier finds a behind a cue
that it knows: `extract` ends with a mark of the task's (`#### `). Source: Kojima et al. 2022 (arXiv 2205.11916), whose
cue is "Therefore, the answer (arabic numerals) is"; the baseline without thoughts is `think: ""` with
`reasoning_tokens: 0`. Of the room of an answer, `answer_tokens` are kept for the second request. Cost: two requests, or
one.

Known failure: the answer is what is likely behind the cue, and need not be what the thoughts came to; a chat model that
already thinks unasked is only held up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError
from rlhf.core.search import Draft, SearchTools
from rlhf.core.types import StopReason
from rollout.samplers.common import check_positive


@dataclass(frozen=True, kw_only=True)
class Config:
    """In what words, and how much room there is."""

    think: str = "Let's think step by step.\n"
    """What the thoughts begin with; may be empty."""
    extract: str = "\nTherefore, the answer is #### "
    """What stands before the answer."""
    reasoning_tokens: int | None = None
    """Of the thoughts, at most; null takes what is left of the room, and 0 does without."""
    answer_tokens: int = 32
    """Room that is kept for the answer."""

    def __post_init__(self) -> None:
        check_positive(answer_tokens=self.answer_tokens)
        if not self.extract:
            raise ConfigError(
                "extract", "is empty, and would cut nothing off", fix="end it with the task's mark: #### "
            )
        if self.reasoning_tokens is not None and self.reasoning_tokens < 0:
            raise ConfigError("reasoning_tokens", f"{self.reasoning_tokens} is negative", fix="use null or 0")


async def search(tools: SearchTools, cfg: Config) -> Draft:
    """Thoughts and answer as one."""
    draft = tools.put(tools.root, cfg.think) if cfg.think else tools.root
    cue = len(tools.put(tools.root, cfg.extract).tokens)
    room = tools.sampling.max_tokens - len(draft.tokens) - cue - cfg.answer_tokens
    if room < 1:
        problem = f"leave no room for thoughts of {tools.sampling.max_tokens} tokens"
        raise ConfigError("sampling.max_tokens", f"think, extract and answer_tokens {problem}", fix="raise it")
    thoughts = room if cfg.reasoning_tokens is None else min(room, cfg.reasoning_tokens)
    if thoughts:
        [[draft]] = await tools.extend([draft], sampling=replace(tools.sampling, max_tokens=thoughts))
        if draft.stop not in (None, StopReason.EOS):
            return draft
    asked = replace(tools.sampling, max_tokens=cfg.answer_tokens)
    [[answer]] = await tools.extend([tools.put(draft, cfg.extract)], sampling=asked)
    return answer
