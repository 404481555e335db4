"""From scored groups to optimizer updates: the middle of the online loop.

`prepare` gives every gradable sample its advantages and the log-prob streams that the loss declares; `train` splits the
samples into updates, leaves out what has no gradient, packs the rest and steps the learner.

Three policies meet here, as in decoupled PPO (Hilton et al. 2021, arXiv 2110.00641; AReaL, arXiv 2505.24298). The one
that *sampled*: its log-probs come with the samples, each under the version that drew the token, and are never computed
again, since the trainer no longer has those weights. The *old* one: the weights that the step's updates start from,
whose log-probs the trainer computes now; ratios and clipping compare with it. The *new* one, which moves. The loss
weighs by old over sampled, truncated, and this holds whether the two differ by staleness, dtype or kernels.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rlhf.core.metrics import Metric, Sum, mean_of, merge, spread
from rlhf.core.protocols import LearnerHandle, ReferenceHandle
from rlhf.core.seeding import derive_seed
from rlhf.core.training import Batch, Sample, Stream, UpdateStats
from rlhf.core.types import Group
from rlhf.data.packing import by_sample, count, pack
from rlhf.loops import critic, kl_in_reward, sampled, teacher, verify
from rlhf.loops.stage import Stage
from rlhf.losses.correction import effective_sample_size

if TYPE_CHECKING:
    from rlhf.loops.online import Config

Rows = Mapping[str, tuple[float, ...]]
"""Per sample id, one number per response token that the policy sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The samples of a step, ready to be trained on."""

    samples: list[Sample]
    advantages: Mapping[str, float]
    """Per trajectory id, the mean over its tokens; what is not trained on is absent."""
    metrics: dict[str, Metric]
    kl_coef: float | None
    """Of the KL in the reward in the next step; None where there is none."""


async def prepare(cfg: Config, groups: Sequence[Group], *, stage: Stage, learner: LearnerHandle) -> Prepared:
    """Advantages and log-prob streams of the gradable samples, under the learner's current weights.

    A sample whose advantages are None, as its baseline could not be graded, is left out like one without a grade.
    """
    gradable = [
        Sample(
            id=t.id,
            tokens=t.prompt_tokens + t.tokens,
            target_start=len(t.prompt_tokens),
            target_mask=t.sampled or None,
            rollout_logprobs=t.logprobs,
        )
        for g in groups
        for t, r in zip(g.trajectories, g.rewards, strict=True)
        if r.value is not None and t.tokens
    ]
    groups = list(map(sampled.only, groups))
    reference = stage.reference
    ref = await _logprobs(reference, cfg, gradable, stage) if reference is not None else None
    stale = cfg.needs_teacher and cfg.max_staleness > 0
    needs_old = cfg.epochs * cfg.minibatches > 1 or bool(cfg.kl_in_reward.coef) or stale
    old = await _logprobs(learner, cfg, gradable, stage) if needs_old else None
    metrics: dict[str, Metric] = {}
    kl_coef = stage.progress.kl_coef or cfg.kl_in_reward.coef or None
    if kl_coef is not None:
        assert old is not None and ref is not None
        shaped = kl_in_reward.shape(cfg.kl_in_reward, groups, coef=kl_coef, old=old, ref=ref)
        groups, kl_coef, metrics = shaped.groups, shaped.next_coef, shaped.metrics
    if cfg.needs_teacher:
        assert stage.teacher is not None
        taught = await _logprobs(stage.teacher, cfg, gradable, stage)
        groups = teacher.compared(groups, taught, old)
        metrics["teacher/reverse_kl"] = teacher.reverse_kl(groups, taught)
    values = returns = None
    if cfg.needs_critic:
        assert stage.critic is not None
        values = await critic.values(stage.critic, cfg.critic, gradable)
        groups = critic.valued(groups, values)
        returns = _by_id(groups, cfg.advantage.module.returns(groups, cfg.advantage.config))
    advantages = cfg.advantage.module.advantages(groups, cfg.advantage.config)
    by_id = _by_id(groups, verify.weighted(cfg.verify, groups, advantages))
    trained = [s for s in gradable if by_id[s.id] is not None]
    if values is not None and returns is not None:
        metrics |= critic.measure([(values[s.id], returns[s.id]) for s in trained])
    samples = [
        replace(
            s,
            advantages=sampled.spread(by_id[s.id], s),
            old_logprobs=sampled.spread(old[s.id], s) if old is not None and cfg.epochs * cfg.minibatches > 1 else None,
            ref_logprobs=sampled.spread(ref[s.id], s) if ref is not None and _uses(cfg, Stream.REF_LOGPROBS) else None,
            values=sampled.spread(values[s.id], s) if values is not None else None,
            returns=sampled.spread(returns[s.id], s) if returns is not None else None,
        )
        for s in trained
    ]
    means = {s.id: sum(by_id[s.id]) / len(by_id[s.id]) for s in trained if by_id[s.id]}
    metrics |= spread("critic/advantages", list(means.values()))
    return Prepared(samples=samples, advantages=means, metrics=metrics, kl_coef=kl_coef)


async def train(cfg: Config, batch: Prepared, *, stage: Stage, learner: LearnerHandle) -> dict[str, Metric]:
    """Run the optimizer updates of one step; returns their metrics. While a critic warms up there are none."""
    if cfg.needs_critic and stage.progress.stage_step <= cfg.critic.warmup_steps:
        return {}
    parts = [
        await update(cfg, part, stage=stage, learner=learner)
        for part in split(cfg, batch.samples, seed=stage.seed, step=stage.progress.step)
    ]
    out = merge([{"batch/trained_samples": Sum(0.0)}, *parts])
    out |= effective_sample_size(out)
    return out | {"batch/skipped_no_signal": Sum(len(batch.samples) - out["batch/trained_samples"].value)}


async def update(cfg: Config, part: Sequence[Sample], *, stage: Stage, learner: LearnerHandle) -> dict[str, Metric]:
    """One optimizer update; without any sample that has a gradient nothing happens."""
    free = cfg.loss.module.zero_advantage_is_free(cfg.loss.config)
    signal = [s for s in part if not free or any(s.advantages or ())]
    if not signal:
        return {}
    batches = pack(signal, token_budget=cfg.learner.micro_batch_tokens, multiple=learner.ranks)
    await learner.forward_backward(batches, counts=count(part))
    stats = await learner.optim_step()
    stage.progress.version = stats.version
    stage.progress.tokens += sum(len(s.tokens) for s in signal)
    return {
        **stats.metrics,
        "actor/grad_norm": mean_of([stats.grad_norm]),
        "actor/lr": mean_of([stats.lr]),
        "batch/trained_samples": Sum(len(signal) / cfg.epochs),
    }


async def supervised(
    samples: Sequence[Sample], batches: Sequence[Batch], *, stage: Stage, learner: LearnerHandle, name: str
) -> UpdateStats:
    """One optimizer update on samples that were not sampled here; recorded under `name`, its tokens counted."""
    with stage.phase(f"update_{name}"):
        await learner.forward_backward(batches, counts=count(samples))
        stats = await learner.optim_step()
    tokens = sum(len(s.tokens) for s in samples)
    stage.progress.tokens += tokens
    stage.recorder.count_tokens(tokens)
    stage.recorder.add(
        {**stats.metrics, f"{name}/grad_norm": mean_of([stats.grad_norm]), f"{name}/lr": mean_of([stats.lr])}
    )
    return stats


def split(cfg: Config, samples: Sequence[Sample], *, seed: int, step: int) -> list[list[Sample]]:
    """The samples of each update of a step, in order: every pass shuffles anew by the run's seed."""
    if cfg.epochs * cfg.minibatches == 1:
        return [list(samples)]
    out: list[list[Sample]] = []
    for epoch in range(cfg.epochs):
        shuffled = list(samples)
        random.Random(derive_seed(seed, "minibatch", step, epoch)).shuffle(shuffled)
        out += [shuffled[i :: cfg.minibatches] for i in range(cfg.minibatches)]
    return [part for part in out if part]


async def _logprobs(model: ReferenceHandle, cfg: Config, samples: Sequence[Sample], stage: Stage) -> Rows:
    """Log-probs of every response token under a model."""
    batches = pack(samples, token_budget=cfg.learner.micro_batch_tokens, multiple=model.ranks)
    return by_sample(batches, await model.logprobs(batches))


def _by_id(groups: Sequence[Group], rows: Sequence[Sequence[tuple[float, ...] | None]]) -> dict[str, Any]:
    """Rows by trajectory."""
    ids = (t.id for g in groups for t in g.trajectories)
    return dict(zip(ids, (row for group in rows for row in group), strict=True))


def _uses(cfg: Config, stream: Stream) -> bool:
    return stream in cfg.loss.module.streams(cfg.loss.config)
