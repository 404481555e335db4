"""Rollout, reward and filter for one online step, with refill (dynamic sampling of DAPO, arXiv 2503.14476).

Filters drop groups that cannot teach. With `max_refills` above 0 more prompts are drawn until the step has the groups
it wants or the cap is reached; the number drawn follows the share that was kept so far, so a step does not end
in many small rounds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rewards import rubric
from rlhf.core.component import Component
from rlhf.core.metrics import Mean, Metric, Sum, mean_of, spread
from rlhf.core.types import Group, StopReason, Verdict
from rlhf.loops.prompts import PromptStream
from rlhf.loops.rollouts import sample_groups
from rlhf.loops.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Groups of one step: all that were scored, and those that the filters left."""

    scored: list[Group]
    kept: list[Group]
    metrics: dict[str, Metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """Draws, samples, scores and filters for a stage."""

    stage: Stage
    prompts: PromptStream
    filters: Mapping[str, Component]
    prompts_per_step: int
    samples_per_prompt: int
    max_refills: int

    async def collect(self, step: int) -> Collected:
        """The groups of a step; moves the stage's prompt cursor."""
        scored: list[Group] = []
        kept: list[Group] = []
        dropped: Counter[str] = Counter()
        for _ in range(1 + self.max_refills):
            fresh = await self._scored(self._wanted(len(kept), len(scored)), step)
            scored += fresh
            for group in fresh:
                left, reason = self._filtered(group)
                if left is not None:
                    kept.append(left)
                else:
                    dropped[reason] += 1
            if len(kept) >= self.prompts_per_step:
                break
        if surplus := len(kept) - self.prompts_per_step:
            dropped["surplus"] += max(0, surplus)
        kept = kept[: self.prompts_per_step]
        self.stage.progress.tokens += (tokens := sum(len(t.tokens) for g in scored for t in g.trajectories))
        self.stage.recorder.count_tokens(tokens)
        return Collected(scored=scored, kept=kept, metrics=_metrics(scored, dropped))

    def _wanted(self, kept: int, drawn: int) -> int:
        missing = self.prompts_per_step - kept
        share = max(kept / drawn, 1 / 8) if drawn else 1.0
        return min(self.prompts_per_step, math.ceil(missing / share))

    async def _scored(self, count: int, step: int) -> list[Group]:
        progress = self.stage.progress
        prompts = self.prompts.take(progress.cursor, count)
        progress.cursor += count
        with self.stage.phase("gen"):
            groups = await sample_groups(
                self.stage.engine,
                prompts,
                tokenizer=self.stage.tokenizer,
                sampling=self.stage.sampling,
                seed=self.stage.seed,
                step=step,
                count=self.samples_per_prompt,
            )
        with self.stage.phase("reward"):
            return await self.stage.grader.grade(groups)

    def _filtered(self, group: Group) -> tuple[Group | None, str]:
        for component in self.filters.values():
            kept = component.module.keep(group, component.config)
            if kept.group is None:
                return None, kept.reason
            group = kept.group
        return group, ""


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
    }
    for verdict in (Verdict.CORRECT, Verdict.WRONG):
        found = [length for length, reward in zip(lengths, rewards, strict=True) if reward.verdict == verdict]
        out |= {f"response_length/{verdict}/mean": mean_of(found)} if found else {}
    for name in dict.fromkeys(name for reward in rewards for name in reward.breakdown):
        parts = [value for r in rewards if (value := r.breakdown.get(name)) is not None]
        out |= {f"reward/{name}/mean": mean_of(parts)} if parts else {}
    return out
