"""From prompts to groups: one request per sample, each with a seed derived from its stable name.

Used by the online, generate and evaluate loops and by replay, so that a sample is made in one way only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlhf.core.protocols import EngineHandle
from rlhf.core.sampling import Sampling
from rlhf.core.seeding import derive_seed, trajectory_id
from rlhf.core.types import Group, Prompt, Request, Trajectory
from rlhf.data.render import render_prompt


def requests_for(
    prompts: Sequence[Prompt], *, tokenizer: PreTrainedTokenizerBase, seed: int, step: int, indices: Sequence[range]
) -> list[Request]:
    """Requests per prompt, group by group: one for each of its indices."""
    out: list[Request] = []
    for prompt, own in zip(prompts, indices, strict=True):
        tokens = render_prompt(tokenizer, prompt)
        for index in own:
            name = trajectory_id(seed, step, prompt.id, index)
            out.append(Request(id=name, prompt_tokens=tokens, seed=derive_seed(seed, "sample", name)))
    return out


async def sample_groups(
    engine: EngineHandle,
    prompts: Sequence[Prompt],
    *,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    seed: int,
    step: int,
    count: int,
) -> list[Group]:
    """Sample `count` trajectories per prompt.

    Args:
        seed: of the run.
        step: global step, part of every sample's name.
        count: samples per prompt.

    Returns:
        One group per prompt, in order, not yet scored.
    """
    return await sample_indices(
        engine,
        prompts,
        [range(count)] * len(prompts),
        tokenizer=tokenizer,
        sampling=sampling,
        seed=seed,
        step=step,
    )


async def sample_indices(
    engine: EngineHandle,
    prompts: Sequence[Prompt],
    indices: Sequence[range],
    *,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    seed: int,
    step: int,
) -> list[Group]:
    """The samples of each prompt that have these indices; what a sample is does not depend on which others are made.

    Args:
        indices: per prompt, 0-based.
    """
    requests = requests_for(prompts, tokenizer=tokenizer, seed=seed, step=step, indices=indices)
    completions = await engine.generate(requests, sampling=sampling) if requests else []
    places = [(prompt, index) for prompt, own in zip(prompts, indices, strict=True) for index in own]
    trajectories = [
        Trajectory(
            id=request.id,
            prompt_id=prompt.id,
            index=index,
            prompt_tokens=request.prompt_tokens,
            tokens=completion.tokens,
            logprobs=completion.logprobs,
            text=completion.text,
            stop=completion.stop,
            policy_version=completion.policy_version,
            versions=completion.versions,
            seed=request.seed,
        )
        for (prompt, index), request, completion in zip(places, requests, completions, strict=True)
    ]
    left = iter(trajectories)
    return [
        Group(prompt=prompt, trajectories=tuple(itertools.islice(left, len(own))))
        for prompt, own in zip(prompts, indices, strict=True)
    ]
