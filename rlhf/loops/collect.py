"""Rollout, reward and filter for one online step, with refill (dynamic sampling of DAPO, arXiv 2503.14476).

Filters drop groups that cannot teach. With `max_refills` above 0 more prompts are drawn until the step has the groups
it wants or the cap is reached; the number drawn follows the share that was kept so far, so a step does not end
in many small rounds.

Collections of several steps may run at once. They draw their prompts in the order of their steps: one that may still
refill keeps the next one from drawing. What a collection took counts when it is taken for training (`Collector.next`),
so that a checkpoint stands behind the last prompt that was trained on, and prompts in flight are drawn again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, field

from rewards import rubric
from rlhf.core.component import Component
from rlhf.core.metrics import Max, Mean, Metric, Sum, mean_of, spread
from rlhf.core.search import Cost
from rlhf.core.types import Group, Prompt, StopReason, Verdict
from rlhf.loops import greedy, verify
from rlhf.loops.boundary import Boundary, Probe
from rlhf.loops.prompts import Prompts
from rlhf.loops.quotas import Quotas
from rlhf.loops.rollouts import sample_indices
from rlhf.loops.searching import search_groups
from rlhf.loops.selection import filtered
from rlhf.loops.stage import Stage
from rlhf.loops.verify import VerifyConfig
from rollout.buffer import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Groups of one step: all that were scored, and those that the filters left."""

    scored: list[Group]
    kept: list[Group]
    metrics: dict[str, Metric]
    cursor: int
    """Training prompts drawn in this stage up to the end of this step."""
    tokens: int
    """Generated, those of a probe included."""
    seconds: Mapping[str, float]
    """Spent on sampling (`gen`, with the scoring of a search) and grading (`reward`), on judgements (`verify`), and on
    finding out what the policy knows (`probe`)."""
    ended: float
    """When, on the clock of `time.perf_counter`."""


@dataclass(slots=True, kw_only=True)
class Collector:
    """Draws, samples, scores and filters for a stage."""

    stage: Stage
    prompts: Prompts
    filters: Mapping[str, Component]
    prompts_per_step: int
    samples_per_prompt: int
    max_refills: int
    boundary: Boundary | None = None
    """What the policy knows; goes to the rewards with the prompts."""
    with_greedy: bool = False
    """Whether every group gets the greedy answer to its prompt beside it."""
    sampler: Component | None = None
    """How each sample is searched for; None draws it."""
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    """Which answers the policy judges; judgements are further groups of the step."""
    quotas: Quotas | None = None
    """How many answers each prompt is to have; it is then drawn once, and sampled until it has them."""
    _cursor: int = field(init=False)
    """Prompts drawn, those of collections in flight included."""
    _turn: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    """Held by the collection that may draw."""

    def __post_init__(self) -> None:
        self._cursor = self.stage.progress.cursor

    async def next(self, batches: Buffer[Collected]) -> Collected:
        """The batch to train on now; moves the stage's prompt cursor and counts what it cost."""
        stage, start, ready = self.stage, time.perf_counter(), batches.ready
        batch = await batches.take()
        now = time.perf_counter()
        stage.progress.cursor = batch.cursor
        stage.progress.tokens += batch.tokens
        stage.recorder.count_tokens(batch.tokens)
        stage.recorder.add(batch.metrics)
        stage.recorder.add(self.prompts.settle(batch.scored))
        if not batches.ahead:
            stage.recorder.spend(batch.seconds)
            return batch
        stage.recorder.spend({"wait_rollout": now - start})
        lay = {"wait": max(0.0, start - batch.ended)}
        stage.recorder.add({f"perf/collect_s/{name}": spent for name, spent in (dict(batch.seconds) | lay).items()})
        stage.recorder.add({"buffer/ready": float(ready), "buffer/making": float(batches.making)})
        stage.recorder.add(_staleness(batch.scored, stage.progress.version))
        return batch

    async def collect(self, step: int) -> Collected:
        """The groups of a step."""
        scored: list[Group] = []
        kept: list[Group] = []
        dropped: Counter[str] = Counter()
        probe = Probe()
        watch, cursor = _Watch(), self._cursor
        async with AsyncExitStack() as drawing:
            await drawing.enter_async_context(self._turn)
            if self.boundary is not None:
                with watch.phase("probe"):
                    probe = await self.boundary.refresh(step, self._cursor)
            for refills_left in range(self.max_refills, -1, -1):
                drawn = self._draw(self._wanted(len(kept), len(scored)))
                cursor = self._cursor
                if not refills_left:
                    await drawing.aclose()
                fresh = await self._scored(drawn, step, watch)
                scored += fresh
                for group in fresh:
                    left, reason = filtered(group, self.filters)
                    if left is not None:
                        kept.append(left)
                    else:
                        dropped[reason] += 1
                if len(kept) >= self.prompts_per_step:
                    break
        judged = await self._judged(scored, step, watch)
        if surplus := len(kept) - self.prompts_per_step:
            dropped["surplus"] += max(0, surplus)
        return Collected(
            scored=[*scored, *judged],
            kept=[
                *kept[: self.prompts_per_step],
                *filter(None, (filtered(group, self.filters)[0] for group in judged)),
            ],
            metrics=_metrics(scored, dropped)
            | greedy.measure(scored)
            | (verify.metrics(self.verify, judged) if judged else {})
            | (self.quotas.metrics(scored) if self.quotas is not None else {})
            | dict(probe.metrics)
            | _spent(watch.cost),
            cursor=cursor,
            tokens=probe.tokens
            + (watch.cost.completion_tokens if self.sampler else _tokens(scored))
            + sum(map(_tokens, (greedy.of(scored), judged, greedy.of(judged)))),
            seconds=watch.seconds,
            ended=time.perf_counter(),
        )

    def _wanted(self, kept: int, drawn: int) -> int:
        missing = self.prompts_per_step - kept
        share = max(kept / drawn, 1 / 8) if drawn else 1.0
        return min(self.prompts_per_step, math.ceil(missing / share))

    def _draw(self, count: int) -> list[Prompt]:
        if self.quotas is not None:
            count = min(count, len(self.quotas.by_prompt) - self._cursor)
        prompts = self.prompts.take(self._cursor, count)
        self._cursor += count
        return prompts if self.boundary is None else list(map(self.boundary.known, prompts))

    async def _scored(self, prompts: Sequence[Prompt], step: int, watch: _Watch) -> list[Group]:
        if self.quotas is None:
            return await self._sampled(prompts, [range(self.samples_per_prompt)] * len(prompts), step, watch)
        return await self.quotas.fill(prompts, lambda some, indices: self._sampled(some, indices, step, watch))

    async def _sampled(
        self, prompts: Sequence[Prompt], indices: Sequence[range], step: int, watch: _Watch
    ) -> list[Group]:
        """Graded groups of the samples with these indices."""
        with watch.phase("gen"):
            groups = await self._drawn(prompts, indices, step, watch)
            alone = await greedy.sampled(self.stage, prompts, step=step) if self.with_greedy else []
        with watch.phase("reward"):
            answered = groups if any(indices) else []
            graded = await self.stage.grader.grade([*answered, *alone])
            return greedy.beside(graded[: len(answered)] or groups, graded[len(answered) :])

    async def _drawn(
        self, prompts: Sequence[Prompt], indices: Sequence[range], step: int, watch: _Watch
    ) -> list[Group]:
        stage = self.stage
        if self.sampler is None:
            return await sample_indices(
                stage.engine,
                prompts,
                indices,
                tokenizer=stage.tokenizer,
                sampling=stage.sampling,
                seed=stage.seed,
                step=step,
            )
        searched = await search_groups(
            stage.engine,
            stage.grader,
            prompts,
            indices,
            sampler=self.sampler,
            tokenizer=stage.tokenizer,
            sampling=stage.sampling,
            seed=stage.seed,
            step=step,
        )
        watch.cost += searched.cost
        return searched.groups

    async def _judged(self, scored: Sequence[Group], step: int, watch: _Watch) -> list[Group]:
        if not self.verify.on:
            return []
        with watch.phase("verify"):
            return await verify.judgements(
                self.verify, scored, stage=self.stage, step=step, with_greedy=self.with_greedy
            )


class _Watch:
    """Seconds per phase of one collection, which may run while another step's are counted, and what its searches
    cost."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cost = Cost()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def _spent(cost: Cost) -> dict[str, Metric]:
    return {f"spent/{name}": Sum(value) for name, value in asdict(cost).items() if value}


def _tokens(groups: Sequence[Group]) -> int:
    return sum(len(t.tokens) for g in groups for t in g.trajectories)


def _staleness(groups: Sequence[Group], version: int) -> dict[str, Metric]:
    """How many optimizer updates the weights that sampled a token are behind those that learn from it."""
    trajectories = [t for g in groups for t in g.trajectories if t.tokens]
    behind = [version - v for t in trajectories for v in t.versions or (t.policy_version,) * len(t.tokens)]
    crossed = sum(bool(t.versions) for t in trajectories)
    if not behind:
        return {}
    return {
        "staleness/mean": mean_of(behind),
        "staleness/max": Max(max(behind)),
        "staleness/crossed": Mean(crossed, len(trajectories)),
    }


def _metrics(groups: Sequence[Group], dropped: Counter[str]) -> dict[str, Metric]:
    trajectories = [t for g in groups for t in g.trajectories]
    rewards = [r for g in groups for r in g.rewards]
    lengths = [float(len(t.tokens)) for t in trajectories]
    out: dict[str, Metric] = {
        "batch/prompts": Sum(len(groups)),
        "batch/samples": Sum(len(trajectories)),
        "batch/ungradable": Sum(sum(r.value is None for r in rewards)),
        "response_length/clip_ratio": Mean(sum(t.stop == StopReason.LENGTH for t in trajectories), len(trajectories)),
        "prompt_length/mean": mean_of([float(len(t.prompt_tokens)) for t in trajectories]),
        **spread("response_length", lengths),
        **spread("critic/score", [r.value for r in rewards if r.value is not None]),
        **{f"batch/dropped_{reason}": Sum(count) for reason, count in sorted(dropped.items()) if count},
        **{f"verdict/{verdict}": Sum(count) for verdict, count in rubric.verdict_counts(groups).items()},
        **{f"reason/{kind}": Sum(count) for kind, count in sorted(rubric.reason_counts(groups).items())},
    }
    for verdict in (Verdict.CORRECT, Verdict.WRONG):
        found = [length for length, reward in zip(lengths, rewards, strict=True) if reward.verdict == verdict]
        out |= {f"response_length/{verdict}/mean": mean_of(found)} if found else {}
    for name in dict.fromkeys(name for reward in rewards for name in reward.breakdown):
        parts = [value for r in rewards if (value := r.breakdown.get(name)) is not None]
        out |= {f"reward/{name}/mean": mean_of(parts)} if parts else {}
    for name in dict.fromkeys(name for reward in rewards for name in reward.weights):
        weights = [reward.weights[name] for reward in rewards if name in reward.weights]
        out |= {f"reward/{name}/weight": mean_of(weights)} if any(len(r.weights) > 1 for r in rewards) else {}
    return out
