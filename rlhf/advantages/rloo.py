"""Leave-one-out advantages: a sample's return minus the mean return of the other samples of its prompt.

    A_i = R_i - mean_{j != i} R_j = n / (n - 1) * (R_i - mean)

Kool et al. 2019 ("Buy 4 REINFORCE samples, get a baseline for free"); for language models Ahmadian et al. 2024
(arXiv 2402.14740). The baseline does not depend on the sample itself, so the gradient is unbiased; Dr.GRPO differs
only by the factor. n counts graded samples; a single one has no baseline and gets 0. KL in the reward, part of the
published method, comes in as the group's per-token penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.advantages import common
from rlhf.advantages.common import Row
from rlhf.core.types import Group


@dataclass(frozen=True, kw_only=True)
class Config:
    """Leave-one-out has nothing to set."""


def advantages(groups: Sequence[Group], cfg: Config) -> list[list[Row | None]]:
    """Per group, per trajectory: one value per response token; None for what could not be graded."""
    return [common.rows(group, _leave_one_out(common.returns(group))) for group in groups]


def _leave_one_out(returns_G: Sequence[float | None]) -> list[float | None]:
    n = len(common.graded(returns_G))
    factor = n / (n - 1) if n > 1 else 1.0
    return [None if value is None else value * factor for value in common.centred(returns_G)]
