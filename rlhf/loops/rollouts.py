"""From prompts to groups: one request per sample, each with a seed derived from its stable name.

Used by the online, generate and evaluate loops and by replay, so that a sample is made in one way only.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlhf.core.protocols import EngineHandle
from rlhf.core.sampling import Sampling
from rlhf.core.seeding import derive_seed, trajectory_id
from rlhf.core.types import Group, Prompt, Request, Trajectory
from rlhf.data.render import render_prompt


def requests_for(
    prompts: Sequence[Prompt], *, tokenizer: PreTrainedTokenizerBase, seed: int, step: int, count: int
) -> list[Request]:
    """`count` requests per prompt, group by group."""
    out: list[Request] = []
    for prompt in prompts:
        tokens = render_prompt(tokenizer, prompt)
        for index in range(count):
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
    requests = requests_for(prompts, tokenizer=tokenizer, seed=seed, step=step, count=count)
    completions = await engine.generate(requests, sampling=sampling)
    trajectories = [
        Trajectory(
            id=request.id,
            prompt_id=prompts[i // count].id,
            index=i % count,
            prompt_tokens=request.prompt_tokens,
            tokens=completion.tokens,
            logprobs=completion.logprobs,
            text=completion.text,
            stop=completion.stop,
            policy_version=completion.policy_version,
            versions=completion.versions,
            seed=request.seed,
        )
        for i, (request, completion) in enumerate(zip(requests, completions, strict=True))
    ]
    return [
        Group(prompt=prompt, trajectories=tuple(trajectories[i * count : (i + 1) * count]))
        for i, prompt in enumerate(prompts)
    ]
