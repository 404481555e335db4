"""The critic of the online loop: a second learner, on the same ranks, that learns what a policy's tokens will earn.

It exists where the advantages ask for values (`rlhf.core.modules.CriticAdvantageModule`). Its values before the
step's updates go into the advantages; then it learns from the returns, in as many updates as the policy and before it.
It starts from a model of its own or from the policy's weights with a head that says 0, has an optimizer and a schedule
of its own, and lies in the checkpoints of its stage, in a folder of their own. A later stage starts with a new one.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rlhf.core.component import Component
from rlhf.core.config import slot
from rlhf.core.errors import ConfigError
from rlhf.core.metrics import Mean, Metric, mean_of, merge
from rlhf.core.protocols import LearnerHandle
from rlhf.core.training import Head, Labels, Sample
from rlhf.core.types import Group
from rlhf.data.packing import by_sample, count, pack
from rlhf.learner import learner
from rlhf.loops.stage import LearnerRequest, Stage

Rows = Mapping[str, tuple[float, ...]]
"""Per sample id, one number per response token."""


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The critic, where the advantages need one."""

    path: str | None = None
    """Model to start from: a folder or hub id of a token classifier with one label (a reward model, an earlier critic)
    or a policy, or an earlier stage of the run that trains a reward model; null is the policy's weights at the start of
    the stage."""
    loss: Component = slot("rlhf.losses", "value")
    """What it minimises."""
    learner: learner.Config = field(default_factory=learner.Config)
    """Its own batches, optimizer and schedule."""
    warmup_steps: int = 0
    """Steps at the start of the stage in which only the critic learns."""

    def __post_init__(self) -> None:
        check_head("loss", self.loss, Head.VALUES)
        check_unlabelled("loss", self.loss)
        if self.warmup_steps < 0:
            raise ConfigError("warmup_steps", f"{self.warmup_steps} is negative", fix="use 0 or more")


def check_head(where: str, loss: Component, head: Head) -> None:
    """Refuse a loss for another kind of model.

    Raises:
        ConfigError: naming the key.
    """
    if learner.head(loss) is not head:
        what = "a critic" if learner.head(loss) is Head.VALUES else "a policy"
        fix = "use value" if head is Head.VALUES else "use a loss of a policy, and set critic.loss for its critic"
        raise ConfigError(where, f"'{loss.name}' trains {what}", fix=fix)


def check_unlabelled(where: str, loss: Component) -> None:
    """Refuse a loss that learns from labelled answers where answers are sampled and graded.

    Raises:
        ConfigError: naming the key.
    """
    if learner.labels(loss) is not Labels.NONE:
        problem = f"'{loss.name}' learns from answers of which it is known how good they are"
        raise ConfigError(where, problem, fix="use it in a stage with loop: offline")


async def start(cfg: CriticConfig, stage: Stage, *, total_updates: int) -> None:
    """Make the stage's critic, where the stage's progress stands."""
    request = LearnerRequest(cfg.loss, cfg.learner, stage.sampling, total_updates)
    stage.critic = await stage.spawn_critic(request, cfg.path, stage.second)
    if stage.progress.stage_step:
        await stage.critic.load(stage.saved_critic)


async def values(critic: LearnerHandle, cfg: CriticConfig, samples: Sequence[Sample]) -> Rows:
    """What the critic expects before each response token."""
    batches = pack(samples, token_budget=cfg.learner.micro_batch_tokens, multiple=critic.ranks)
    return by_sample(batches, await critic.values(batches))


def valued(groups: Sequence[Group], found: Rows) -> list[Group]:
    """Groups with their values; what has no grade has none either."""
    return [
        replace(g, values_GT=tuple(found.get(t.id, (0.0,) * len(t.tokens)) for t in g.trajectories)) for g in groups
    ]


def measure(rows: Iterable[tuple[Sequence[float], Sequence[float]]]) -> dict[str, Metric]:
    """Values and returns of a step, and how much of the variance of the returns the values explain (1 is all of it).

    Args:
        rows: the two of each answer, token by token.
    """
    pairs = [pair for values, returns in rows for pair in zip(values, returns, strict=True)]
    if not pairs:
        return {}
    expected, came = [v for v, _ in pairs], [r for _, r in pairs]
    out: dict[str, Metric] = {"critic/values/mean": mean_of(expected), "critic/returns/mean": mean_of(came)}
    if spread := statistics.pvariance(came):
        missed = statistics.pvariance([r - v for v, r in pairs])
        out["critic/vf_explained_var"] = Mean(1 - missed / spread, 1)
    return out


async def train(cfg: CriticConfig, parts: Sequence[Sequence[Sample]], *, stage: Stage) -> dict[str, Metric]:
    """One optimizer update per part; returns their metrics."""
    critic, out = stage.critic, list[Mapping[str, Metric]]()
    assert critic is not None, "made when the stage began"
    for part in parts:
        batches = pack(part, token_budget=cfg.learner.micro_batch_tokens, multiple=critic.ranks)
        await critic.forward_backward(batches, counts=count(part))
        stats = await critic.optim_step()
        stage.progress.critic_version = stats.version
        out.append({**stats.metrics, "critic/grad_norm": mean_of([stats.grad_norm]), "critic/lr": mean_of([stats.lr])})
    return merge(out)
