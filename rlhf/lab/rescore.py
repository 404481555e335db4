"""`rlhf rescore`: a run's saved rollouts under another reward config, before a run with it costs anything.

Every answer in `samples.jsonl` is graded again, but no judgement of an answer (`rlhf.loops.verify`), which no reward
grades. What is compared is what was recorded with what the new config says: verdicts, values, the order of the answers
to a prompt, and advantages. Both sides' advantages are computed here, from their rewards, by each config's own filters
and advantage, so that they differ by nothing but the configs. KL in the reward is part of neither; advantages of a
critic, whose values were not saved, are not compared.

What this can not say is what a model trained on the other reward would have sampled.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rewards import rubric
from rewards.pool import WorkerPool
from rlhf.core.errors import RunFolderError
from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.core.types import Group, RewardOut, Trajectory
from rlhf.loops import boundary, greedy, online, records, sampled, settings, setup, verify
from rlhf.loops.boundary import History
from rlhf.loops.records import Record
from rlhf.loops.settings import Experiment

SAME = 1e-9
"""Values and advantages nearer to each other than this are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A sample whose verdict, value or advantage is another one."""

    record: Record
    out: RewardOut
    ranks: tuple[int | None, int | None]
    """Its place among the answers to its prompt by value, 1 the best, before and after."""
    advantages: tuple[float | None, float | None]
    """Mean over its tokens; None: not trained on."""


@dataclass(slots=True, kw_only=True)
class Order:
    """How pairs of answers to one prompt stand to each other, before and after."""

    kept: int = 0
    """Ordered alike, or equal on both sides."""
    reversed: int = 0
    tied: int = 0
    """Ordered before, equal after."""
    untied: int = 0

    def count(self, before: Sequence[float | None], after: Sequence[float | None]) -> None:
        """Add the pairs of a group; those with an ungraded answer are left out."""
        graded = [(b, a) for b, a in zip(before, after, strict=True) if b is not None and a is not None]
        for (b1, a1), (b2, a2) in itertools.combinations(graded, 2):
            was, now = _sign(b1 - b2), _sign(a1 - a2)
            if was == now:
                self.kept += 1
            elif not was:
                self.untied += 1
            elif not now:
                self.tied += 1
            else:
                self.reversed += 1


@dataclass(slots=True, kw_only=True)
class Rescored:
    """What another reward config changes in a run."""

    samples: int = 0
    groups: int = 0
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Samples by verdict before and after."""
    values: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    """Of all graded samples, before and after."""
    order: Order = field(default_factory=Order)
    signal: Counter[tuple[bool, bool]] = field(default_factory=Counter[tuple[bool, bool]])
    """Groups by whether they are trained on with an advantage that is not 0, before and after."""
    signs: Counter[tuple[int, int]] = field(default_factory=Counter[tuple[int, int]])
    """Samples by sign of their advantage, before and after; what is not trained on counts as 0."""
    pairs: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    """Advantages of the samples that both sides train on."""
    parts: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Values of each reward of the new config."""
    changed: list[Changed] = field(default_factory=list[Changed])
    not_compared: str = ""
    """Why there are no advantages; empty when there are."""


def rescore(run: Path, config: Path | None = None, overrides: Sequence[str] = ()) -> Rescored:
    """Grade a run's samples again.

    Args:
        run: its folder.
        config: a recipe: its `rewards`, `rubric`, and the advantage and filters of its stage of the same name, else of
            its last online stage. Without `base` and `stages` it says what is different from the run's own, which
            counts when there is none.
        overrides: `key=value` for the recipe.

    Raises:
        UserError: not a run, no samples in it, a prompt that its task no longer has, or a config that cannot be used.
    """
    folder = RunFolder.existing(run)
    old = settings.read(folder.config)
    new = settings.read(config or folder.config, overrides, otherwise=folder.config)
    prompts = {prompt.id: prompt for prompt in setup.task(old.settings).train()}
    found = Rescored()
    histories: dict[str, History] = {}
    with WorkerPool() as pool:
        for (step, stage), rows in itertools.groupby(read_lines(folder.samples), key=lambda r: (r["step"], r["stage"])):
            was, now = _stage(old, stage), _stage(new, stage, or_last=True)
            answers = [group for group in records.groups(rows) if not verify.judges(group)]
            before = [replace(group, prompt=records.asked(group.prompt.id, prompts)) for group in answers]
            if was is not None and was.boundary.on:
                if stage not in histories:
                    histories[stage] = boundary.history(was.boundary, folder.data, stage=stage)
                known = histories[stage].at(step)
                before = [replace(group, prompt=boundary.attached(group.prompt, known)) for group in before]
            alone = greedy.of(before)
            bare = [replace(group, rewards=()) for group in (*before, *alone)]
            scored = rubric.score_groups(bare, new.settings.rewards, new.settings.rubric, pool)
            after = greedy.beside(scored[: len(before)], scored[len(before) :])
            found.not_compared = found.not_compared or _obstacle(was, now, with_greedy=bool(alone))
            both = None
            if was is not None and now is not None and not found.not_compared:
                most = was.prompts_per_step  # the other config's steps may be smaller than those that were sampled
                both = (_advantages(was, before, prompts=most), _advantages(now, after, prompts=most))
            _count(found, before, after, both)
    if not found.samples:
        raise RunFolderError(str(folder.samples), "holds no samples", fix="train for at least one online step")
    return found


def _stage(experiment: Experiment, name: str, *, or_last: bool = False) -> online.Config | None:
    """The online stage of that name, else the last one."""
    stages = {s.name: s.config for s in experiment.stages if isinstance(s.config, online.Config)}
    last = next(reversed(stages.values()), None) if or_last else None
    return stages.get(name, last)


def _obstacle(was: online.Config | None, now: online.Config | None, *, with_greedy: bool) -> str:
    if was is None or now is None:
        return f"the {'run' if was is None else 'config'} has no online stage to compute advantages by"
    if was.needs_critic or now.needs_critic:
        return "a critic's values were not saved"
    if greedy.wanted(now.advantage) and not with_greedy:
        return "the run sampled no greedy answers to compare with"
    return ""


def _advantages(cfg: online.Config, scored: Sequence[Group], *, prompts: int) -> dict[str, float]:
    """Mean over its tokens, of each sample that is trained on."""
    kept = list(map(sampled.only, records.kept(cfg, scored, prompts=prompts)))
    rows = cfg.advantage.module.advantages(kept, cfg.advantage.config)
    trajectories = [t for group in kept for t in group.trajectories]
    flat: Iterable[tuple[float, ...] | None] = (row for group in rows for row in group)
    return {t.id: sum(row) / len(row) for t, row in zip(trajectories, flat, strict=True) if row}


def _count(
    found: Rescored,
    before: Sequence[Group],
    after: Sequence[Group],
    both: tuple[dict[str, float], dict[str, float]] | None,
) -> None:
    for was, now in zip(before, after, strict=True):
        values = [r.value for r in was.rewards], [r.value for r in now.rewards]
        found.groups += 1
        found.samples += len(was.trajectories)
        found.order.count(*values)
        for side in (0, 1):
            found.values[side].extend(value for value in values[side] if value is not None)
        for out in now.rewards:
            for name, value in out.breakdown.items():
                if value is not None and "/" not in name:
                    found.parts.setdefault(name, []).append(value)
        if both is not None:
            _count_advantages(found, was.trajectories, both)
        found.changed.extend(_changes(was, now, both))
        found.verdicts.update((a.verdict.value, b.verdict.value) for a, b in zip(was.rewards, now.rewards, strict=True))


def _count_advantages(
    found: Rescored, trajectories: Sequence[Trajectory], both: tuple[dict[str, float], dict[str, float]]
) -> None:
    signs = [(_sign(both[0].get(t.id, 0.0)), _sign(both[1].get(t.id, 0.0))) for t in trajectories]
    found.signs.update(signs)
    found.signal[any(s[0] for s in signs), any(s[1] for s in signs)] += 1
    for t in trajectories:
        if t.id in both[0] and t.id in both[1]:
            found.pairs[0].append(both[0][t.id])
            found.pairs[1].append(both[1][t.id])


def _changes(was: Group, now: Group, both: tuple[dict[str, float], dict[str, float]] | None) -> Iterator[Changed]:
    ranks = _ranks([r.value for r in was.rewards]), _ranks([r.value for r in now.rewards])
    for g, (trajectory, old, new) in enumerate(zip(was.trajectories, was.rewards, now.rewards, strict=True)):
        advantages = (None, None) if both is None else (both[0].get(trajectory.id), both[1].get(trajectory.id))
        if old.verdict is new.verdict and _same(old.value, new.value) and _same(*advantages):
            continue
        record: Record = {
            "id": trajectory.id,
            "step": trajectory.step,
            "prompt": was.prompt.messages[-1].content,
            "gold": was.prompt.gold,
            "text": trajectory.text,
            "value": old.value,
            "verdict": old.verdict.value,
            "reason": old.reason,
            "extracted": old.extracted,
        }
        yield Changed(record=record, out=new, ranks=(ranks[0][g], ranks[1][g]), advantages=advantages)


def _ranks(values: Sequence[float | None]) -> list[int | None]:
    """1 plus the number of better answers."""
    return [None if v is None else 1 + sum(o is not None and o > v + SAME for o in values) for v in values]


def _same(left: float | None, right: float | None) -> bool:
    if left is None or right is None:
        return left is right
    return abs(left - right) <= SAME


def _sign(value: float) -> int:
    return 0 if abs(value) <= SAME else 1 if value > 0 else -1
