"""ReMax: how much better an answer did than the most probable one, as a baseline that needs no group and no critic.

    A_t = sum_{s >= t} r_s - R(greedy)            r_t: what the reward places on token t, minus its penalty; the rest of
                                                  the reward at the last token

Li et al. 2023 (arXiv 2310.10505). `greedy` is the answer that the same weights give to the same prompt by greedy
decoding, one more per prompt: it is sampled and graded beside the group (`Group.greedy`), is trained on by nobody and
has no part in what the group's rewards are compared with. As in verl, KL in the reward counts from a token on and is no
part of the baseline, and nothing is divided. One answer per prompt is enough. Where the greedy answer could not be
graded there is no baseline, and the group is left out of the update.

On a prompt whose greedy answer is right every right answer gets 0 and every wrong one -1: as the policy gets better,
what is left to learn from are mistakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.advantages import common
from rlhf.advantages.common import Row
from rlhf.core.types import Group

GREEDY = True


@dataclass(frozen=True, kw_only=True)
class Config:
    """ReMax has nothing to set."""


def advantages(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """Per group, per trajectory: one value per response token; None for what could not be graded."""
    return [_above_greedy(group) for group in groups]


def _above_greedy(group: Group) -> list[Row | None]:
    if group.greedy is None:
        raise ValueError(f"group '{group.prompt.id}' has no greedy answer to compare with")
    [baseline] = common.returns(group.greedy)
    return [
        None if rewards_T is None or baseline is None else tuple(g - baseline for g in common.to_come(rewards_T))
        for rewards_T in common.token_rewards(group)
    ]
