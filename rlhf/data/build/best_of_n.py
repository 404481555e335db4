"""One row per question: the sample that the rewards like best, of all that were drawn.

    y* = argmax over i of R(y_i)            of n samples; of equal ones the first

What cannot be graded takes no part. A stage that learns from the rows distils best-of-n: the policy comes to answer at
once what else n samples and a reward would find. In the limit its policy is at a distance of log n - (n - 1) / n from
the one that sampled, measured by KL. Rows are those of the builder `samples`, with `of` (samples that took part) and
`mean_value`.

Source: best-of-n and, repeated on prompts without answers, expert iteration of AlpacaFarm (Dubois et al. 2023, arXiv
2305.14387, section 3.3; n = 16); the KL is that of Stiennon et al. 2020 (arXiv 2009.01325, appendix G.3).

What can go wrong: with a large n, a reward that a model has learnt is over-optimised, and the best sample is the one
that it errs about most. With a verifier of 0 and 1 this is rejection sampling of one answer per question, and of a
question without a right answer a wrong one, unless `least` forbids it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer
from rlhf.core.types import Group, Json
from rlhf.data.build import samples

CONTINUES = False
WHOLE_GROUPS = True
WRONG_TOO = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is good enough."""

    least: float | None = None
    """Leave a question out whose best sample is worth less; null takes every best one."""

    def __post_init__(self) -> None:
        if self.least is not None and not math.isfinite(self.least):
            raise ConfigError("least", f"{self.least} is not finite", fix="use 1 for right answers, or null")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions."""
    found: list[dict[str, Json]] = []
    for group in groups:
        values = [reward.value for reward in group.rewards]
        graded = [value for value in values if value is not None]
        if not graded or (cfg.least is not None and max(graded) < cfg.least):
            continue
        best = values.index(max(graded))
        alone = replace(group, trajectories=(group.trajectories[best],), rewards=(group.rewards[best],))
        [row] = await samples.build([alone], samples.Config(), continuer)
        found.append(row | {"of": len(graded), "mean_value": math.fsum(graded) / len(graded)})
    return found
