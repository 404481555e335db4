"""Which training prompts an online stage draws next, by what it knows of them: a curriculum.

    rl:
      curriculum: {by: {learnability: {}}}
      curriculum: {by: {easy_to_hard: {column: difficulty}, learning_progress: {}}}    # weights are multiplied

    prompts -> [weights, draw] -> rollouts -> rewards -> [how often each was right] -> checkpoint

A file in `rlhf/data/curricula` gives every prompt a weight; prompts are drawn in proportion, without repeating one
before the step that holds it has been trained on (an exponential race, Efraimidis and Spirakis 2006). What is known of
a prompt is how often it was drawn and a running mean of the share of its graded answers that were correct, to begin
with that of a `profile`; of a group of prompts, two running means over steps. It counts when a step is taken for
training, and lies in every checkpoint as `curriculum.json`: draws follow from that, the seed and the position, so that
a resumed stage draws what it would have drawn. Where rollouts run ahead, draws in flight are made again.
Without `by` a stage goes through all prompts in a new order every epoch (`rlhf.loops.prompts`) and knows nothing.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from rlhf.core.component import Component
from rlhf.core.config import slots
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.metrics import Mean, Metric, mean_of
from rlhf.core.modules import GroupKnown, Known
from rlhf.core.outcomes import verified
from rlhf.core.seeding import content_key, derive_seed
from rlhf.core.types import Group, Json, Prompt, Verdict
from rlhf.loops import boundary
from rlhf.loops.boundary import Tally
from rlhf.loops.prompts import Prompts, PromptStream
from rlhf.loops.stage import CURRICULUM, Stage

_MOST_GROUPS = 16
"""Groups whose share of the draws is recorded."""


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Which prompts come next; by default all of them in turn."""

    by: dict[str, Component] = slots("rlhf.data.curricula")
    """What prompts are weighed by, by label; several weights are multiplied."""
    profile: str = ""
    """What is known of the prompts at the start: an earlier `generate` stage with `build: boundary`, or the JSONL file
    of one."""
    memory: float = 0.5
    """What the running success rate of a prompt keeps of itself when the prompt is answered again."""
    group: str = ""
    """Column of the prompts by which they are grouped; empty: their task."""
    fast: float = 0.7
    """What the success rate of a group with the shorter memory keeps of itself at a step."""
    slow: float = 0.93
    """The same of that with the longer memory."""

    def __post_init__(self) -> None:
        if not self.by and self.profile:
            fix = "set by, for example {learnability: {}}, or leave it empty"
            raise ConfigError("profile", "nothing goes by what is known of the prompts", fix=fix)
        if not 0 <= self.memory < 1:
            raise ConfigError("memory", f"{self.memory} is not a share below 1", fix="use 0.5, or 0 for the last time")
        if not 0 <= self.fast < self.slow < 1:
            problem = f"{self.fast} and slow={self.slow} are not shares below 1, the second the larger one"
            raise ConfigError("fast", problem, fix="use fast: 0.7 and slow: 0.93")

    @property
    def on(self) -> bool:
        return bool(self.by)


def start(cfg: CurriculumConfig, stage: Stage, prompts: Sequence[Prompt], *, total: int) -> Prompts:
    """The prompts of a stage in drawing order, from wherever its progress stands.

    Args:
        prompts: that it may draw.
        total: prompts that its steps use, refills aside.

    Raises:
        DataError: the prompts, or the profile, do not say what the curriculum goes by.
    """
    if not cfg.on:
        return PromptStream(prompts, seed=stage.seed, name=stage.name)
    known = boundary.read(boundary.found(cfg.profile, stage.folder.data, "curriculum.profile")) if cfg.profile else {}
    made = Curriculum(cfg, prompts, seed=stage.seed, name=stage.name, total=total, profile=known)
    if stage.progress.stage_step:
        saved = stage.folder.checkpoints / f"step_{stage.progress.step}" / CURRICULUM
        made.restore(json.loads(saved.read_text(encoding="utf-8")))
    stage.curriculum = made.state
    return made


def check(cfg: CurriculumConfig, prompts: Sequence[Prompt]) -> None:
    """Whether the prompts say what a curriculum goes by, as far as this can be seen before the stage.

    Raises:
        DataError: they do not.
    """
    rate = 0.5 if cfg.profile else None
    known = [Known(prompt=prompt, group=_group(prompt, cfg.group), rate=rate) for prompt in prompts]
    groups = {one.group: GroupKnown() for one in known}
    for rule in cfg.by.values():
        rule.module.weights(known, rule.config, groups=groups, done=0.0)


class Curriculum:
    """Implements `Prompts` by what is known of them.

    Args:
        cfg: how.
        prompts: with different ids.
        seed: run seed.
        name: of the stage.
        total: see `start`.
        profile: what is known at first, by the content of the question.
    """

    def __init__(
        self,
        cfg: CurriculumConfig,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        name: str,
        total: int,
        profile: Mapping[str, Tally],
    ) -> None:
        self._cfg, self._seed, self._name, self._total = cfg, seed, name, total
        tallies = (profile.get(content_key(prompt)) for prompt in prompts) if profile else (None for _ in prompts)
        self._known = [
            Known(
                prompt=prompt,
                group=_group(prompt, cfg.group),
                rate=tally.correct / tally.answered if tally is not None and tally.answered else None,
            )
            for prompt, tally in zip(prompts, tallies, strict=True)
        ]
        self._groups = {one.group: GroupKnown() for one in self._known}
        self._flying: dict[str, int] = {}
        """Drawn and not settled: places by the ids that were given."""
        self._open = 1.0

    def take(self, cursor: int, count: int) -> list[Prompt]:
        """See `Prompts.take`; ids carry how often a prompt was drawn before: `sums-17~1`."""
        out: list[Prompt] = []
        while len(out) < count:
            for place in self._chosen(cursor + len(out), count - len(out)):
                known = self._known[place]
                before = known.drawn + sum(other == place for other in self._flying.values())
                prompt = replace(known.prompt, id=f"{known.prompt.id}~{before}") if before else known.prompt
                self._flying[prompt.id] = place
                out.append(prompt)
        return out

    def settle(self, groups: Sequence[Group]) -> Mapping[str, Metric]:
        """See `Prompts.settle`."""
        places = [(group, self._flying.pop(group.prompt.id)) for group in groups if group.prompt.id in self._flying]
        expected = [rate for _, place in places if (rate := self._known[place].rate) is not None]
        of_group: dict[str, list[float]] = {}
        for group, place in places:
            known, share = self._known[place], _success(group)
            self._known[place] = replace(known, drawn=known.drawn + 1)
            if share is not None:
                rate = share if known.rate is None else self._cfg.memory * known.rate + (1 - self._cfg.memory) * share
                self._known[place] = replace(self._known[place], seen=known.seen + 1, rate=rate)
                of_group.setdefault(known.group, []).append(share)
        for name, shares in of_group.items():
            self._groups[name] = self._moved(self._groups[name], math.fsum(shares) / len(shares))
        return self._metrics([self._known[place].group for _, place in places], expected)

    def state(self) -> Json:
        """What a checkpoint holds; draws in flight are left out."""
        return {
            "prompts": {k.prompt.id: [k.drawn, k.seen, k.rate] for k in self._known if k.drawn},
            "groups": {name: asdict(group) for name, group in self._groups.items() if group.seen},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Know what was known when `state` was asked."""
        self._groups |= {name: GroupKnown(**group) for name, group in state["groups"].items()}
        for place, known in enumerate(self._known):
            drawn, seen, rate = state["prompts"].get(known.prompt.id, (known.drawn, known.seen, known.rate))
            self._known[place] = replace(known, drawn=drawn, seen=seen, rate=rate)

    def _chosen(self, position: int, count: int) -> list[int]:
        """Places to draw now, at most `count`; those in flight only where there are no others."""
        weights, done = [1.0] * len(self._known), min(1.0, position / self._total)
        for rule in self._cfg.by.values():
            own = rule.module.weights(self._known, rule.config, groups=self._groups, done=done)
            weights = [one * other for one, other in zip(weights, own, strict=True)]
        rng, flying = Random(derive_seed(self._seed, "curriculum", self._name, position)), {*self._flying.values()}
        race = [(rng.expovariate(1.0) / weight, place) for place, weight in enumerate(weights) if weight > 0]
        if not race:
            fix = "leave one of the rules out: together they give no prompt a weight"
            raise DataError(f"{self._name}.curriculum.by", "no prompt may be drawn", fix=fix)
        self._open = len(race) / len(weights)
        free = [entry for entry in race if entry[1] not in flying]
        return [place for _, place in heapq.nsmallest(count, free or race)]

    def _moved(self, group: GroupKnown, share: float) -> GroupKnown:
        if not group.seen:
            return GroupKnown(seen=1, fast=share, slow=share)
        cfg = self._cfg
        fast, slow = (keep * old + (1 - keep) * share for keep, old in ((cfg.fast, group.fast), (cfg.slow, group.slow)))
        return GroupKnown(seen=group.seen + 1, fast=fast, slow=slow)

    def _metrics(self, drawn: Sequence[str], expected: Sequence[float]) -> dict[str, Metric]:
        of_group, several = Counter(drawn), 1 < len(self._groups) <= _MOST_GROUPS and bool(drawn)
        return {
            "curriculum/open": Mean(self._open, 1),
            "curriculum/seen": Mean(sum(k.seen > 0 for k in self._known), len(self._known)),
            **({"curriculum/expected": mean_of(list(expected))} if expected else {}),
            **{f"curriculum/share/{name}": Mean(of_group[name], len(drawn)) for name in self._groups if several},
        }


def _group(prompt: Prompt, column: str) -> str:
    return str(prompt.columns.get(column)) if column else prompt.task


def _success(group: Group) -> float | None:
    """Share of the graded answers that are correct; None where there are none."""
    graded = [reward for reward in group.rewards if verified(reward)]
    return sum(r.verdict is Verdict.CORRECT for r in graded) / len(graded) if graded else None
