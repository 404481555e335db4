"""The generate loop: prompts -> rollouts -> rewards -> select -> a dataset with provenance.

    consumes    training prompts, each once
    produces    `data/<stage>.jsonl` in the run folder, one row per selected sample
    waits for   nothing; weights do not change

What the rows are is up to a builder in `rlhf/data/build`: the selected samples themselves, what it makes of them, or a
count of all samples of a prompt. A builder may set quotas: then a step draws its prompts and samples them until each
has as many answers as it is to have (`rlhf.loops.quotas`).

Rejection sampling is this loop followed by an offline stage with `data: <stage>`; repeated, it is expert iteration.
Every row says which weights, seed and config it comes from (`rlhf.loops.origin`), and builders add samples and
verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from rlhf.core.component import Component
from rlhf.core.config import slot, slots
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import BuilderModule, QuotaBuilderModule
from rlhf.core.sampling import Transforms
from rlhf.core.seeding import content_key
from rlhf.core.types import Group, Prompt
from rlhf.learner import learner
from rlhf.loops import greedy, origin
from rlhf.loops.collect import Collector
from rlhf.loops.continuing import StageContinuer
from rlhf.loops.dataset import Dataset
from rlhf.loops.prompts import PromptStream, of_tasks
from rlhf.loops.quotas import Quotas
from rlhf.loops.selection import ALL, CORRECT, SELECT, filtered, selected
from rlhf.loops.stage import LearnerRequest, Stage
from rollout.buffer import Buffer


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
    """Samples per prompt; with quotas, those that a prompt is given on average in each round of a step. 0 samples
    nothing, for builders that can do without."""
    sampler: Component = slot("rollout.samplers", "single")
    """How a sample is found: one draw, or a search."""
    select: str = CORRECT
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
        if self.build.module.WHOLE_GROUPS and (self.select != ALL or self.max_per_prompt):
            problem = f"'{self.build.name}' counts every sample of a prompt, and a selection leaves some out"
            raise ConfigError("select", problem, fix="set select: all, and leave max_per_prompt at 0")
        if self.build.module.WRONG_TOO and self.select != ALL:
            problem = f"leaves '{self.build.name}' only samples that are '{self.select}', and it needs wrong ones too"
            raise ConfigError("select", problem, fix="use select: all")
        if self.has_quotas and self.max_per_prompt:
            problem = f"'{self.build.name}' says itself how many answers it wants of each prompt"
            raise ConfigError("max_per_prompt", problem, fix="leave it at 0, and set build.rows")
        unsampled = bool(vars(self.build.module).get("UNSAMPLED", False)) and self.samples_per_prompt == 0
        for name in ("steps", "prompts_per_step", *(() if unsampled else ("samples_per_prompt",))):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} does nothing", fix="use 1 or more")

    @property
    def searches(self) -> bool:
        """Whether a sample is more than one request."""
        return self.sampler.name != "single"

    @property
    def has_quotas(self) -> bool:
        """Whether the builder says how many answers it wants of each prompt."""
        return "quotas" in vars(self.build.module)


async def run(cfg: Config, stage: Stage) -> None:
    """Write the dataset, from wherever the stage's progress stands."""
    frozen = await stage.spawn_learner(LearnerRequest(None, cfg.learner, Transforms(), 0))
    sync = await stage.start(frozen, restore=False)
    prompts = drawn(cfg, stage.task.train())
    continuer = StageContinuer(stage, micro_batch_tokens=cfg.learner.micro_batch_tokens)
    quotas = _quotas(cfg, prompts, continuer) if cfg.has_quotas else None
    collector = Collector(
        stage=stage,
        prompts=PromptStream(prompts, seed=stage.seed, name=stage.name),
        filters=cfg.filters,
        prompts_per_step=cfg.prompts_per_step,
        samples_per_prompt=cfg.samples_per_prompt,
        max_refills=0,
        with_greedy=greedy.wanted(cfg.build),
        quotas=quotas,
        sampler=cfg.sampler,
    )
    builder = cast(BuilderModule, cfg.build.module)
    dataset = Dataset(stage.folder.data, build=cfg.build, origin=origin.of(stage, build=cfg.build.name))
    batches = Buffer(collector.collect, stage.left(cfg.steps), ahead=0)
    for step in stage.steps(cfg.steps):
        collected = await collector.next(batches)
        given = [_given(group, cfg, quotas) for group in collected.kept]
        rows = await builder.build(given, cfg.build.config, continuer)
        dataset.append(rows, step=step)
        if stage.progress.stage_step == cfg.steps:
            dataset.end()
        samples = sum(len(group.trajectories) for group in given)
        stage.recorder.add({"data/rows": float(len(rows)), "data/samples": float(samples)})
        stage.record_samples(list(map(_recorded, collected.scored)), {})
        await stage.end_step(frozen, sync, total=cfg.steps, synced=True)


def drawn(cfg: Config, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """The prompts that a stage draws from; with quotas, those that ask the same stand for one question."""
    found = of_tasks(prompts, cfg.tasks)
    if not cfg.has_quotas:
        return found
    questions: dict[str, Prompt] = {}
    for prompt in found:
        questions.setdefault(content_key(prompt), prompt)
    return list(questions.values())


def sources(cfg: Config) -> list[tuple[str, str, str]]:
    """What the builder reads besides samples: key of its config, builder that writes such rows (empty: any), and the
    stage or file that is named there."""
    kinds: Mapping[str, str] = vars(cfg.build.module).get("SOURCES", {})
    named = [(key, kind, vars(cfg.build.config)[key]) for key, kind in kinds.items()]
    return [
        (key, kind, name)
        for key, kind, value in named
        for name in ([value] if isinstance(value, str) else value)
        if name
    ]


def batch_arithmetic(cfg: Config) -> Mapping[str, str]:
    """What one step does, for `rlhf plan`."""
    samples = cfg.prompts_per_step * cfg.samples_per_prompt
    if cfg.has_quotas:
        prompts = f"{cfg.prompts_per_step} prompts per step"
        return {
            "rollout": f"{prompts}, sampled in rounds of {samples} until each has what '{cfg.build.name}' wants",
            "in all": f"{cfg.steps} steps, at most {cfg.steps * cfg.prompts_per_step} prompts, each drawn once",
        }
    each = f", each by a search ({cfg.sampler.name})" if cfg.searches else ""
    step = f"{cfg.prompts_per_step} prompts × {cfg.samples_per_prompt} samples = {samples} samples per step{each}"
    return {
        "rollout": step,
        "in all": f"{cfg.steps} steps = {cfg.steps * samples} samples, those with select={cfg.select} are kept",
    }


def _quotas(cfg: Config, prompts: Sequence[Prompt], continuer: StageContinuer) -> Quotas:
    """What the builder wants of each prompt."""
    builder = cast(QuotaBuilderModule, cfg.build.module)
    asked = builder.quotas(prompts, cfg.build.config, continuer)

    def wanted(group: Group) -> int:
        left, _ = filtered(group, cfg.filters)
        return len(selected(left, select=cfg.select).trajectories) if left is not None else 0

    by_prompt = {prompt.id: quota for prompt, quota in zip(prompts, asked, strict=True)}
    return Quotas(by_prompt=by_prompt, wanted=wanted, budget=cfg.prompts_per_step * cfg.samples_per_prompt)


def _given(group: Group, cfg: Config, quotas: Quotas | None) -> Group:
    """What the builder gets to see of a group."""
    if cfg.build.module.WHOLE_GROUPS:
        return group
    most = cfg.max_per_prompt if quotas is None else quotas.by_prompt[group.prompt.id].rows
    return selected(group, select=cfg.select, most=most)


def _recorded(group: Group) -> Group:
    """The group, or if it has no samples the greedy answer to its prompt."""
    alone = group.greedy
    return replace(alone, prompt=group.prompt) if alone is not None and not group.trajectories else group
