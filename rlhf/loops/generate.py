"""The generate loop: prompts -> rollouts -> rewards -> select -> a dataset with provenance.

    consumes    training prompts, each once
    produces    `data/<stage>.jsonl` in the run folder, one row per selected sample
    waits for   nothing; weights do not change

What the rows are is up to a builder in `rlhf/data/build`: the selected samples themselves, what it makes of them, or a
count of all samples of a prompt. Rejection sampling is this loop followed by an offline stage with `data: <stage>`;
repeated, it is expert iteration.
Every row says which weights, seed and verdict it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from rlhf.core.component import Component
from rlhf.core.config import slot, slots
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import BuilderModule
from rlhf.core.run_folder import append_lines
from rlhf.core.types import Group, Verdict
from rlhf.learner import learner
from rlhf.loops.collect import Collector
from rlhf.loops.continuing import StageContinuer
from rlhf.loops.prompts import PromptStream, of_tasks
from rlhf.loops.stage import LearnerRequest, Stage
from rollout.buffer import Buffer

SELECT = ("correct", "all")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One dataset."""

    steps: int = 32
    """Rollout batches; prompts are drawn in a seeded order and repeat only when the task has fewer."""
    tasks: list[str] = field(default_factory=list[str])
    """Draw prompts of these tasks only, for a task of several parts; empty draws from all."""
    prompts_per_step: int = 32
    """Prompts per rollout batch."""
    samples_per_prompt: int = 8
    """Samples per prompt."""
    select: str = "correct"
    """`correct` keeps samples with that verdict, `all` keeps everything that was graded. A builder that counts samples,
    such as `boundary`, is given all of them and wants `all`."""
    max_per_prompt: int = 0
    """Rows per prompt, the first ones; 0 keeps all. Equal texts of one prompt count once."""
    filters: dict[str, Component] = slots("rollout.filters")
    """Groups and samples to leave out before selecting."""
    build: Component = slot("rlhf.data.build", "samples")
    """What the rows are: the selected samples themselves, or what is made of them."""
    learner: learner.Config = field(default_factory=learner.Config)
    start: str = ""
    """Stage whose last weights to start from, or `model` for what the run starts from; empty goes on with the stage
    before."""
    evaluate_every: int = 0
    """Steps between evaluations of held-out prompts; 0 evaluates at the end of the stage only."""

    def __post_init__(self) -> None:
        if self.select not in SELECT:
            raise ConfigError("select", f"'{self.select}' is not offered", fix=did_you_mean(self.select, SELECT))
        if self.build.module.WHOLE_GROUPS and (self.select != "all" or self.max_per_prompt):
            problem = f"'{self.build.name}' counts every sample of a prompt, and a selection leaves some out"
            raise ConfigError("select", problem, fix="set select: all, and leave max_per_prompt at 0")
        if self.build.module.WRONG_TOO and self.select != "all":
            problem = f"leaves '{self.build.name}' only samples that are '{self.select}', and it needs wrong ones too"
            raise ConfigError("select", problem, fix="use select: all")
        for name in ("steps", "prompts_per_step", "samples_per_prompt"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} does nothing", fix="use 1 or more")


async def run(cfg: Config, stage: Stage) -> None:
    """Write the dataset, from wherever the stage's progress stands."""
    frozen = await stage.spawn_learner(LearnerRequest(None, cfg.learner, stage.sampling, 0))
    sync = await stage.start(frozen, restore=False)
    collector = Collector(
        stage=stage,
        prompts=PromptStream(of_tasks(stage.task.train(), cfg.tasks), seed=stage.seed, name=stage.name),
        filters=cfg.filters,
        prompts_per_step=cfg.prompts_per_step,
        samples_per_prompt=cfg.samples_per_prompt,
        max_refills=0,
    )
    stage.folder.data.mkdir(exist_ok=True)
    target = stage.folder.data / f"{stage.name}.jsonl"
    target.touch()
    builder, continuer = cast(BuilderModule, cfg.build.module), StageContinuer(stage)
    batches = Buffer(collector.collect, stage.left(cfg.steps), ahead=0)
    for _ in stage.steps(cfg.steps):
        collected = await collector.next(batches)
        kept = collected.kept
        given = kept if builder.WHOLE_GROUPS else [_selected(group, cfg) for group in kept]
        rows = await builder.build(given, cfg.build.config, continuer)
        append_lines(target, rows)
        samples = sum(len(group.trajectories) for group in given)
        stage.recorder.add({"data/rows": float(len(rows)), "data/samples": float(samples)})
        stage.record_samples(collected.scored, {})
        await stage.end_step(frozen, sync, total=cfg.steps, synced=True)


def batch_arithmetic(cfg: Config) -> Mapping[str, str]:
    """What one step does, for `rlhf plan`."""
    samples = cfg.prompts_per_step * cfg.samples_per_prompt
    return {
        "rollout": f"{cfg.prompts_per_step} prompts × {cfg.samples_per_prompt} samples = {samples} samples per step",
        "in all": f"{cfg.steps} steps = {cfg.steps * samples} samples, those with select={cfg.select} are kept",
    }


def _selected(group: Group, cfg: Config) -> Group:
    """The samples of a group that are wanted, equal texts once."""
    seen: set[str] = set()
    kept: list[int] = []
    for g, (t, reward) in enumerate(zip(group.trajectories, group.rewards, strict=True)):
        wanted = reward.verdict == Verdict.CORRECT if cfg.select == "correct" else reward.value is not None
        if not wanted or t.text in seen or (cfg.max_per_prompt and len(seen) >= cfg.max_per_prompt):
            continue
        seen.add(t.text)
        kept.append(g)
    return replace(
        group,
        trajectories=tuple(group.trajectories[g] for g in kept),
        rewards=tuple(group.rewards[g] for g in kept),
    )
