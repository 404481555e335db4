"""Pairs of answers as somebody would judge them who errs: simulated preferences, to try methods with.

    p(a over b) = (1 - f) s + f (1 - s)      s = sigmoid((R(a) - R(b)) / t);   t = 0: s is 1 where R(a) > R(b)

`flip` is f, the chance that a judgement is turned round; `temperature` is t, by which answers of nearly equal value are
mixed up and others are not. Of all pairs of a question whose values differ at most `max_pairs` are drawn, as by the
builder `pairs`. Rows have both values, and `flipped` where the worse answer was preferred, so that a stage can be
compared with one on the truth.

Source: AlpacaFarm (Dubois et al. 2023, arXiv 2305.14387, section 3.2): annotators that disagree, of whose training
labels a quarter is flipped, without which a reward model is not over-optimised as one of people's judgements is. Theirs
are thirteen prompts for language models; ours is the run's reward with Bradley and Terry's model of choice (1952). As
pairs are drawn in a random order, neither side is favoured by its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group, Json, StopReason, Trajectory
from rlhf.data.build import pairs

CONTINUES = False
WHOLE_GROUPS = True
WRONG_TOO = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many pairs, and how often they are judged wrongly."""

    max_pairs: int = 1
    """Pairs per question, at most."""
    flip: float = 0.25
    """Chance that a judgement is turned round (f)."""
    temperature: float = 0.0
    """Difference of values at which choices become uncertain (t); 0 makes every difference count."""

    def __post_init__(self) -> None:
        pairs.Config(max_pairs=self.max_pairs)
        if not 0 <= self.flip <= 0.5:
            problem = f"{self.flip} is no chance of an error; above one half it would be the other judgement"
            raise ConfigError("flip", problem, fix="use 0.25, or 0")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError("temperature", f"{self.temperature} is out of range", fix="use 0, or 1")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the groups."""
    return [row for group in groups for row in _judged(group, cfg)]


def preferred(better: float, worse: float, cfg: Config) -> float:
    """The chance that the better of two answers is preferred."""
    gap = better - worse
    chosen = 1.0 if cfg.temperature == 0 else 1 / (1 + math.exp(-gap / cfg.temperature))
    return (1 - cfg.flip) * chosen + cfg.flip * (1 - chosen)


def _judged(group: Group, cfg: Config) -> list[dict[str, Json]]:
    """Pairs of one question, with what became of them."""
    values = {
        t.id: reward.value
        for t, reward in zip(group.trajectories, group.rewards, strict=True)
        if reward.value is not None and t.stop is not StopReason.LENGTH
    }
    answers = [t for t in group.trajectories if t.id in values]
    differ = [(one, other) for one, other in combinations(answers, 2) if values[one.id] != values[other.id]]
    candidates = [_sorted(both, values) for both in differ]
    if not candidates:
        return []
    name = min(t.id for t in answers)
    rows: list[dict[str, Json]] = []
    for better, worse in pairs.spread(candidates, cfg.max_pairs, Random(derive_seed(0, "noisy_pairs", name))):
        chance = preferred(values[better.id], values[worse.id], cfg)
        flipped = Random(derive_seed(0, "noisy_pairs", better.id, worse.id)).random() >= chance
        chosen, rejected = (worse, better) if flipped else (better, worse)
        told: dict[str, Json] = {
            "flipped": flipped,
            "chosen_value": values[chosen.id],
            "rejected_value": values[rejected.id],
        }
        rows.append(pairs.row(group, chosen, rejected) | told)
    return rows


def _sorted(both: tuple[Trajectory, Trajectory], values: dict[str, float]) -> tuple[Trajectory, Trajectory]:
    """The better answer first."""
    one, other = both
    return (one, other) if values[one.id] > values[other.id] else (other, one)
