"""The greedy answer beside each group, for advantages that compare with it (`GreedyAdvantageModule`).

It comes from the same weights as the group, is graded as a group of one, so that it changes nothing in how the others
are compared, and is recorded with the group's first sample. Its id has a seed of its own, derived from the run's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlhf.core.component import Component
from rlhf.core.metrics import Metric, mean_of
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group, Prompt
from rlhf.loops.rollouts import sample_groups
from rlhf.loops.stage import Stage


def wanted(advantage: Component) -> bool:
    """Whether advantages look at greedy answers."""
    return bool(vars(advantage.module).get("GREEDY", False))


async def sampled(stage: Stage, prompts: Sequence[Prompt], *, step: int) -> list[Group]:
    """A group of one greedy answer per prompt, not yet scored."""
    return await sample_groups(
        stage.engine,
        prompts,
        tokenizer=stage.tokenizer,
        sampling=replace(stage.sampling, temperature=0.0),
        seed=derive_seed(stage.seed, "greedy"),
        step=step,
        count=1,
    )


def beside(groups: Sequence[Group], greedy: Sequence[Group]) -> list[Group]:
    """Groups with the greedy answers to their prompts, in order; with none where there are none."""
    if not greedy:
        return list(groups)
    return [replace(group, greedy=own) for group, own in zip(groups, greedy, strict=True)]


def of(groups: Sequence[Group]) -> list[Group]:
    """The greedy answers beside the groups, with their prompts."""
    return [replace(group.greedy, prompt=group.prompt) for group in groups if group.greedy is not None]


def measure(groups: Sequence[Group]) -> dict[str, Metric]:
    """Rewards and lengths of the greedy answers, apart from those that are trained on."""
    found = of(groups)
    if not found:
        return {}
    rewards = [value for group in found if (value := group.rewards[0].value) is not None]
    return {
        "greedy/score/mean": mean_of(rewards),
        "greedy/length/mean": mean_of([float(len(group.trajectories[0].tokens)) for group in found]),
    }
