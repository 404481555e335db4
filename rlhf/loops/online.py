"""The online loop: prompts -> rollouts -> rewards -> advantages -> learner -> sync, once per step.

    consumes    prompts of the task, by position
    produces    weights v(n+1), in the engine at the end of every step
    waits for   the rollouts of its own step

With `max_staleness: 0` a step is on-policy: its rollouts come from the weights that it updates, and what it samples
from, trains on and skips is a function of config, seed and weights. With k above 0 the rollouts of the next k steps may
run while a step trains, so that they come from weights up to k steps old; the loss weighs them (`updates.prepare`).
Groups without signal are counted in the denominators and cost no training compute; samples without a grade are counted
and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlhf.core.component import Component
from rlhf.core.config import slot, slots
from rlhf.core.errors import ConfigError
from rlhf.core.training import Head, Stream
from rlhf.learner import learner
from rlhf.loops import critic, curriculum, greedy, reference, teacher, updates, verify
from rlhf.loops.boundary import Boundary, BoundaryConfig
from rlhf.loops.collect import Collector
from rlhf.loops.critic import CriticConfig
from rlhf.loops.curriculum import CurriculumConfig
from rlhf.loops.kl_in_reward import KlInReward
from rlhf.loops.prompts import Prompts, of_tasks
from rlhf.loops.reference import ReferenceConfig
from rlhf.loops.stage import LearnerRequest, Stage
from rlhf.loops.teacher import TeacherConfig
from rlhf.loops.verify import VerifyConfig
from rollout.buffer import Buffer


@dataclass(frozen=True, kw_only=True)
class Config:
    """One stage of reinforcement learning."""

    steps: int = 100
    """Rollout batches of the stage."""
    tasks: list[str] = field(default_factory=list[str])
    """Train on prompts of these tasks only, for a task of several parts; empty trains on all."""
    prompts_per_step: int = 32
    """Prompts per step, global."""
    samples_per_prompt: int = 8
    """Samples per prompt: the group size."""
    advantage: Component = slot("rlhf.advantages", "grpo")
    """How rewards become advantages."""
    loss: Component = slot("rlhf.losses", "policy")
    """What the learner minimises."""
    sampler: Component = slot("rollout.samplers", "single")
    """How a sample comes about: one draw, or with `tool_calls` one that calls tools. Searches that choose between
    answers are for evaluation and generate stages."""
    filters: dict[str, Component] = slots("rollout.filters")
    """Which groups and samples to leave out of the update."""
    max_refills: int = 0
    """Further rounds of prompts when filters dropped groups (dynamic sampling); 0 trains on what is left."""
    epochs: int = 1
    """Passes over the samples of a step."""
    minibatches: int = 1
    """Optimizer updates per pass; samples are split evenly at random."""
    max_staleness: int = 0
    """Steps that rollouts may be behind the weights that learn from them: while one trains, the batches of that many
    further ones may be in collection. 0 alternates; above 0 the loss must look at the sampler's log-probs
    (`loss.correction`).
    """
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    boundary: BoundaryConfig = field(default_factory=BoundaryConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    kl_in_reward: KlInReward = field(default_factory=KlInReward)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    start: str = ""
    """Stage whose last weights to start from, or `model` for what the run starts from; empty goes on with the stage
    before."""
    learner: learner.Config = field(default_factory=learner.Config)
    evaluate_every: int = 20
    """Steps between evaluations of held-out prompts; 0 evaluates at the end of the stage only."""

    def __post_init__(self) -> None:
        critic.check_head("loss", self.loss, Head.LOGITS)
        critic.check_unlabelled("loss", self.loss)
        for name in ("steps", "prompts_per_step", "samples_per_prompt", "epochs", "minibatches"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} does nothing", fix="use 1 or more")
        samples = self.prompts_per_step * self.samples_per_prompt
        if self.minibatches > samples:
            fix = f"use at most {samples}, or draw more samples"
            raise ConfigError("minibatches", f"{samples} samples do not fill {self.minibatches} updates", fix=fix)
        _check_sampler(self)
        verify.check(self.verify, samples)
        if self.max_staleness < 0:
            raise ConfigError("max_staleness", f"{self.max_staleness} is negative", fix="use 0 for on-policy steps")
        if self.max_staleness and not self.corrects_staleness:
            problem = f"the loss would take samples of weights up to {self.max_staleness} steps old for its own"
            fix = "leave loss.correction at its default, so that it weighs them, or set max_staleness to 0"
            raise ConfigError("max_staleness", problem, fix=fix)
        if self.boundary.samples and self.curriculum.on:
            problem = "would ask about the questions of coming steps, and the curriculum decides these step by step"
            fix = "set boundary.source instead of boundary.samples, or leave the curriculum out"
            raise ConfigError("boundary.samples", problem, fix=fix)
        if self.reference.every and not self.needs_reference:
            fix = "set loss.kl_coef or kl_in_reward.coef, or leave it at 0"
            raise ConfigError("reference.every", "moves a reference that nothing looks at", fix=fix)

    @property
    def needs_reference(self) -> bool:
        """Whether the loss or the reward looks at a reference model."""
        return bool(self.kl_in_reward.coef) or Stream.REF_LOGPROBS in self.loss.module.streams(self.loss.config)

    @property
    def needs_critic(self) -> bool:
        """Whether the advantages look at the values of a critic."""
        return hasattr(self.advantage.module, "returns")

    @property
    def needs_teacher(self) -> bool:
        """Whether the advantages look at the log-probs of a teacher."""
        return getattr(self.advantage.module, "TEACHER", False)

    @property
    def searches(self) -> bool:
        """Whether a sample is more than one request."""
        return self.sampler.name != "single"

    @property
    def policy_updates(self) -> int:
        """Optimizer updates of the policy."""
        waits = self.critic.warmup_steps if self.needs_critic else 0
        return max(0, self.steps - waits) * self.epochs * self.minibatches

    @property
    def corrects_staleness(self) -> bool:
        """Whether the loss weighs samples, or leaves some out, by what their sampler thought of them."""
        return Stream.ROLLOUT_LOGPROBS in self.loss.module.streams(self.loss.config)


async def run(cfg: Config, stage: Stage) -> None:
    """Train for `cfg.steps` steps, from wherever the stage's progress stands."""
    request = LearnerRequest(cfg.loss, cfg.learner, stage.sampling, cfg.policy_updates)
    learner = await stage.spawn_learner(request)
    if cfg.needs_reference:
        await reference.start(cfg.reference, stage, learner, request)
    if cfg.needs_teacher:
        await teacher.start(cfg.teacher, cfg.learner, stage)
    if cfg.needs_critic:
        await critic.start(cfg.critic, stage, total_updates=cfg.steps * cfg.epochs * cfg.minibatches)
    sync = await stage.start(learner)
    drawn_from = of_tasks(stage.task.train(), cfg.tasks)
    prompts = curriculum.start(cfg.curriculum, stage, drawn_from, total=cfg.steps * cfg.prompts_per_step)
    collector = Collector(
        stage=stage,
        prompts=prompts,
        filters=cfg.filters,
        prompts_per_step=cfg.prompts_per_step,
        samples_per_prompt=cfg.samples_per_prompt,
        max_refills=cfg.max_refills,
        boundary=_boundary(cfg, stage, prompts),
        with_greedy=greedy.wanted(cfg.advantage),
        sampler=cfg.sampler if cfg.searches else None,
        verify=cfg.verify,
    )
    async with Buffer(collector.collect, stage.left(cfg.steps), ahead=cfg.max_staleness) as batches:
        for _ in stage.steps(cfg.steps):
            collected = await collector.next(batches)
            with stage.phase("adv"):
                batch = await updates.prepare(cfg, collected.kept, stage=stage, learner=learner)
                stage.progress.kl_coef = batch.kl_coef if cfg.kl_in_reward.target is not None else None
            if cfg.needs_critic:
                with stage.phase("update_critic"):
                    parts = updates.split(cfg, batch.samples, seed=stage.seed, step=stage.progress.step)
                    stage.recorder.add(await critic.train(cfg.critic, parts, stage=stage))
            with stage.phase("update_actor"):
                stats = await updates.train(cfg, batch, stage=stage, learner=learner)
            await reference.follow(cfg.reference, stage, learner)
            await stage.push(sync)
            stage.recorder.add({**batch.metrics, **stats})
            stage.record_samples(collected.scored, batch.advantages)
            await stage.end_step(learner, sync, total=cfg.steps, synced=True)


def _check_sampler(cfg: Config) -> None:
    """Refuse what would be trained on as if the policy had sampled it."""
    if not cfg.searches:
        return
    if not getattr(cfg.sampler.module, "TRAINS", False):
        problem = f"'{cfg.sampler.name}' chooses between answers, so that their log-probs are not those of the policy"
        fix = "use single or tool_calls; search in a stage with loop: generate, and learn what it found"
        raise ConfigError("sampler.name", problem, fix=fix)
    if greedy.wanted(cfg.advantage):
        problem = f"the greedy answers that '{cfg.advantage.name}' compares with are sampled without tools"
        raise ConfigError("sampler.name", problem, fix="use another advantage, or sampler: single")


def _boundary(cfg: Config, stage: Stage, prompts: Prompts) -> Boundary | None:
    if not cfg.boundary.on:
        return None
    return Boundary(cfg.boundary, stage=stage, prompts=prompts, per_step=cfg.prompts_per_step, steps=cfg.steps)


def batch_arithmetic(cfg: Config) -> Mapping[str, str]:
    """What one step does, for `rlhf plan`."""
    samples = cfg.prompts_per_step * cfg.samples_per_prompt
    updates_per_step = cfg.epochs * cfg.minibatches
    return {
        "rollout": f"{cfg.prompts_per_step} prompts × {cfg.samples_per_prompt} samples = {samples} samples per step"
        + (", and the greedy answer to each prompt" if greedy.wanted(cfg.advantage) else ""),
        "updates": f"{cfg.epochs} epochs × {cfg.minibatches} minibatches = {updates_per_step} optimizer updates"
        f" per step, each of {samples // cfg.minibatches} samples",
        "in all": f"{cfg.steps} steps = {cfg.steps * samples} samples, {cfg.steps * updates_per_step} updates",
        **verify.arithmetic(cfg.verify, samples),
        **_staleness(cfg),
        **_probes(cfg),
    }


def _staleness(cfg: Config) -> Mapping[str, str]:
    if not cfg.max_staleness:
        return {}
    behind = cfg.max_staleness * cfg.epochs * cfg.minibatches
    in_flight = (cfg.max_staleness + 1) * cfg.prompts_per_step * cfg.samples_per_prompt
    text = f"rollouts up to {cfg.max_staleness} steps behind ({behind} updates), weighed by the sampler's log-probs"
    return {"overlap": f"{text}; at most {in_flight} samples in flight or waiting, refills aside"}


def _probes(cfg: Config) -> Mapping[str, str]:
    own = cfg.boundary
    if not own.samples or (own.source and not own.every):
        return {}
    ahead = min(own.every or cfg.steps, cfg.steps)
    when = f"every {own.every} steps" if own.every else "at the start"
    text = f"{own.samples} samples of each question of the coming {ahead} steps, {when}: at most"
    return {"knowledge": f"{text} {ahead * cfg.prompts_per_step * own.samples} samples a time"}
