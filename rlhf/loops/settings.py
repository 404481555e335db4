"""The whole of a config file as checked objects: what is shared by all stages, and the stages in order.

`stages: [sft, rl]` names blocks of the same file; a block says which loop it runs (`loop: online`) and holds that
loop's own keys. A block that is not listed is a recipe at rest: inherited, but not run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from rewards import step_judge, trust
from rewards.base import RewardConfig
from rewards.rubric import RubricConfig
from rlhf.advantages import grpo
from rlhf.core import component, config
from rlhf.core.component import Component
from rlhf.core.config import slot, slots
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.sampling import Sampling
from rlhf.core.search import ScoredConfig
from rlhf.data.build import boundary, step_labels
from rlhf.loops import evaluate, generate, offline, online
from rlhf.loops.budget import BudgetConfig
from rlhf.loops.care import CareConfig
from rlhf.loops.stage import REWARD_MODEL, CheckpointConfig
from rlhf.models import load
from rlhf.runtime import ray
from rlhf.tasks import mix

LOOPS = ("online", "offline", "generate")
"""Loops that a stage can run; `evaluate` is part of each and a command of its own."""


MODEL = "model"
"""The name, for a stage's `start`, of what the run starts from."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run lives, and what it leaves there."""

    name: str
    """Folder of the run below `folder`."""
    folder: str = "runs"
    """Where runs are kept, relative to the working directory."""
    report: bool = True
    """Write `report.html` at the end. `rlhf report` does so at any time, also where this is off."""

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.name


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything but the stages."""

    run: RunSettings
    seed: int = 0
    """Every random choice follows from this and a stable name."""
    threads: int = 0
    """CPU threads of torch; 0 uses every core this process may run on."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    model: load.Config
    task: Component = slot("rlhf.tasks", "sums")
    """Where prompts and golds come from."""
    care: CareConfig = field(default_factory=CareConfig)
    rewards: dict[str, Component] = slots("rewards")
    """Reward components by label, the primary first; empty uses the task's own."""
    rubric: RubricConfig = field(default_factory=RubricConfig)
    engine: Component = slot("rollout", "transformers_engine")
    """What samples."""
    runtime: Component = slot("rlhf.runtime", "local")
    """Where engines, learners and reward workers live."""
    sampling: Sampling = field(default_factory=Sampling)
    """How rollouts are sampled; evaluation shares its token budget and stop strings."""
    evaluation: evaluate.Config = field(default_factory=evaluate.Config)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    stages: list[str]
    """Blocks to run, in order; each starts from the weights of the one before."""


@dataclass(frozen=True, slots=True)
class StageSettings:
    """A stage: its name, its loop's module, and that module's config."""

    name: str
    loop: str
    module: ModuleType
    config: Any


@dataclass(frozen=True, slots=True)
class Experiment:
    """A checked config file."""

    settings: Settings
    stages: tuple[StageSettings, ...]
    loaded: config.Loaded
    evaluates_start: bool
    """Held-out accuracy is also measured before the first stage: a run of one stage has no other stage's end to be
    compared with."""
    stop_before: int | None = None
    """Global step in front of which the run ends, for others to go on from."""

    def to_tree(self) -> config.Tree:
        """The resolved config, every default filled in."""
        tree = config.to_tree(self.settings)
        tree |= {s.name: {"loop": s.loop, **config.to_tree(s.config)} for s in self.stages}
        return tree

    def to_yaml(self) -> str:
        """The resolved config as text."""
        return config.to_yaml(self.to_tree())

    @property
    def identity(self) -> str:
        """What tells this config from others, whatever the run is called and wherever it lies: 16 digits of a hash."""
        tree = {key: value for key, value in self.to_tree().items() if key != "run"}
        return hashlib.sha256(config.to_yaml(tree).encode()).hexdigest()[:16]

    def base_yaml(self) -> str:
        """The config's parents resolved likewise, for a comparison key by key; raw where they cannot run alone."""
        tree = self.loaded.base_tree
        alone = config.Loaded(self.loaded.path, tree | {"stages": self.settings.stages}, (), {})
        try:
            return parse(alone).to_yaml()
        except ConfigError:
            return config.to_yaml(tree)


def read(path: Path, overrides: Sequence[str] = (), *, otherwise: Path | None = None) -> Experiment:
    """Load and check a config file.

    Args:
        otherwise: as for `config.load`.

    Raises:
        ConfigError: with the path of the key, the valid choices and the fix.
    """
    return parse(config.load(path, overrides, otherwise=otherwise))


def parse(loaded: config.Loaded) -> Experiment:
    """Check a loaded tree."""
    tree = dict(loaded.tree)
    blocks = {k: v for k, v in tree.items() if isinstance(v, Mapping) and "loop" in v}
    _check_blocks(tree, blocks)
    settings = config.build(Settings, {k: v for k, v in tree.items() if k not in blocks})
    if not settings.stages:
        raise ConfigError("stages", "there is nothing to run", fix=f"name one of: {', '.join(blocks) or 'a block'}")
    if len(set(settings.stages)) != len(settings.stages):
        fix = "give each stage a block of its own; a block can inherit with YAML anchors"
        raise ConfigError("stages", f"{settings.stages} runs a block twice", fix=fix)
    settings = _with_task_rewards(settings)
    _check_rubric(settings)
    stages = tuple(_stage(name, blocks) for name in settings.stages)
    _check_order(stages)
    _check_trained(settings, stages)
    _check_consensus(settings, stages)
    _check_critics(stages)
    _check_normalization(settings, stages)
    _check_tensor_parallel(settings)
    _check_turns(settings, stages)
    _check_scorers(settings, stages)
    return Experiment(settings, stages, loaded, evaluates_start=len(stages) == 1)


def _check_blocks(tree: Mapping[str, Any], blocks: Mapping[str, Any]) -> None:
    """A block without `loop` would read as an unknown key."""
    listed = tree.get("stages")
    for name in listed if isinstance(listed, list) else []:
        if name not in blocks and isinstance(tree.get(name), Mapping):
            raise ConfigError(f"{name}.loop", "is required", fix=f"say what the stage runs: {', '.join(LOOPS)}")


def _check_order(stages: Sequence[StageSettings]) -> None:
    """A stage that learns from another one's samples, or goes by what it found, comes after it."""
    for place, stage in enumerate(stages):
        _check_weights(stage, stages[:place], stages[place:])
        if isinstance(stage.config, online.Config):
            _check_boundary(stage, stages[:place])
        if isinstance(stage.config, generate.Config):
            _check_sources(stage, stages[:place])
        if not isinstance(stage.config, offline.Config):
            continue
        source = next((i for i, other in enumerate(stages) if other.name == stage.config.data), None)
        if source is not None and (source >= place or stages[source].loop != "generate"):
            problem = f"'{stage.config.data}' is not a generate stage that comes before '{stage.name}'"
            raise ConfigError(f"{stage.name}.data", problem, fix="reorder `stages`, or name a dataset file")


def _check_weights(stage: StageSettings, before: Sequence[StageSettings], rest: Sequence[StageSettings]) -> None:
    """A stage starts from, and learns from, what there is by then."""
    names, config = [other.name for other in before], stage.config
    if config.start and config.start not in (MODEL, *names):
        problem = f"'{config.start}' is no stage that comes before '{stage.name}'"
        raise ConfigError(f"{stage.name}.start", problem, fix=did_you_mean(config.start, (MODEL, *names)))
    if isinstance(config, generate.Config) or not config.needs_teacher:
        return
    if config.teacher.path is None:
        fix = f"set {stage.name}.teacher.path to a model, or to a stage before this one"
        raise ConfigError(f"{stage.name}.teacher.path", "there is nobody to learn from", fix=fix)
    if config.teacher.path in [other.name for other in rest]:
        problem = f"'{config.teacher.path}' does not come before '{stage.name}'"
        raise ConfigError(f"{stage.name}.teacher.path", problem, fix="reorder `stages`, or name a model's folder")


def _check_boundary(stage: StageSettings, before: Sequence[StageSettings]) -> None:
    """What a policy knows was measured by a stage before this one, or stands in a file."""
    for key, fix in (("boundary.source", "set boundary.samples"), ("curriculum.profile", "measure it in a stage")):
        block, _, name = key.partition(".")
        if not (source := vars(vars(stage.config)[block])[name]):
            continue
        where = f"{stage.name}.{key}"
        found = next((other for other in before if other.name == source), None)
        if found is None and not Path(source).is_file():
            problem = f"'{source}' is neither a stage that comes before '{stage.name}' nor a file"
            raise ConfigError(where, problem, fix=f"name one, or leave it empty and {fix}")
        counts = found is None or (isinstance(found.config, generate.Config) and found.config.build.module is boundary)
        if not counts:
            problem = f"'{source}' does not say how often questions were answered"
            raise ConfigError(where, problem, fix="give it loop: generate, build: boundary and select: all")


def _check_sources(stage: StageSettings, before: Sequence[StageSettings]) -> None:
    """What a builder reads was written by a stage before this one, of the kind that it wants, or stands in a file."""
    for key, kind, name in generate.sources(stage.config):
        found = next((other for other in before if other.name == name), None)
        where = f"{stage.name}.build.{key}"
        wanted = f"loop: generate and build: {kind}" if kind else "loop: generate"
        if found is None and not Path(name).is_file():
            problem = f"'{name}' is neither a stage that comes before '{stage.name}' nor a file"
            raise ConfigError(where, problem, fix=f"name a file, or a stage with {wanted}")
        built = found.config.build.name if found is not None and isinstance(found.config, generate.Config) else None
        if found is not None and (built is None or (kind and built != kind)):
            raise ConfigError(where, f"'{name}' is no stage with {wanted}", fix="name one that is, or a file")


def _check_consensus(settings: Settings, stages: Sequence[StageSettings]) -> None:
    """Who is to agree with completions is there, and counts the same steps."""
    judges = [c.config for c in settings.rewards.values() if isinstance(c.config, step_judge.Config)]
    for stage in stages:
        built = stage.config.build.config if isinstance(stage.config, generate.Config) else None
        if not isinstance(built, step_labels.Config) or not built.consensus:
            continue
        where = f"{stage.name}.build.consensus"
        if not judges:
            fix = "add the reward `step_judge` with weight: 0, or leave consensus out"
            raise ConfigError(where, "no reward of this run says where an answer goes wrong", fix=fix)
        if judges[0].separator != built.separator:
            problem = f"the judge cuts answers at {judges[0].separator!r}, the builder at {built.separator!r}"
            raise ConfigError(where, problem, fix="give both the same separator")


def trained_beside(stage: StageSettings) -> str:
    """The kind of model that a stage trains beside the policy, as its folder is called; empty for none."""
    return stage.config.beside if isinstance(stage.config, offline.Config) else ""


def _check_critics(stages: Sequence[StageSettings]) -> None:
    """A critic that starts as a stage's reward model comes after that stage."""
    for place, stage in enumerate(stages):
        path = stage.config.critic.path if isinstance(stage.config, online.Config) else None
        source = next((n for n, other in enumerate(stages) if other.name == path), None)
        if source is None:
            continue
        if source >= place or trained_beside(stages[source]) != REWARD_MODEL:
            problem = f"the stage '{path}' trains no reward model before '{stage.name}'"
            raise ConfigError(f"{stage.name}.critic.path", problem, fix="reorder `stages`, or name a folder")


def _check_trained(settings: Settings, stages: Sequence[StageSettings]) -> None:
    """A reward that asks a stage's model is not the first, and is there when samples are trained on."""
    names = [stage.name for stage in stages]
    for place, (label, reward) in enumerate(settings.rewards.items()):
        awaited = reward.config.awaits if isinstance(reward.config, RewardConfig) else None
        if awaited is None:
            continue
        wanted, kind, where = awaited.stage, awaited.loss, f"rewards.{label}.stage"
        fitting = [stage.name for stage in stages if trained_beside(stage) == kind]
        if wanted not in fitting:
            problem = f"no stage '{wanted}' of this run trains a model with loss.name={kind}"
            raise ConfigError(where, problem, fix=did_you_mean(wanted, fitting))
        early = [stage.name for stage in stages[: names.index(wanted)] if stage.loop == "online"]
        if early:
            raise ConfigError(
                where, f"'{wanted}' comes after '{early[0]}', which is graded by it", fix="reorder `stages`"
            )
        if place == 0:
            problem = f"is the first reward, which has to be there before '{wanted}' has run"
            raise ConfigError(where, problem, fix="put a verifier before it, with weight: 0 if it is only to measure")


def _check_rubric(settings: Settings) -> None:
    """Gates and factors are rewards of this run, something is left to be added up, and no opinion decides."""
    rubric = settings.rubric
    for key, names in (("gates", rubric.gates), ("multiply", rubric.multiply)):
        for name in names:
            if name not in settings.rewards:
                fix = did_you_mean(name, settings.rewards)
                raise ConfigError(f"rubric.{key}", f"there is no reward '{name}'", fix=fix)
    if set(settings.rewards) <= set(rubric.multiply):
        raise ConfigError("rubric.multiply", "leaves no reward to be multiplied", fix="take one of them out")
    trust.check(settings.rewards, gates=rubric.gates, multiply=rubric.multiply)


def _check_normalization(settings: Settings, stages: Sequence[StageSettings]) -> None:
    """Rewards can be normalised one by one only where their weighted sum is all there is."""
    rubric = settings.rubric
    replaced = rubric.gates or rubric.multiply or (rubric.truncated_value, rubric.no_answer_value) != (None, None)
    for stage in stages:
        if not replaced or not isinstance(stage.config, online.Config):
            continue
        advantage = stage.config.advantage.config
        if isinstance(advantage, grpo.Config) and advantage.order == grpo.NORMALIZE_FIRST:
            problem = "normalises rewards one by one, but the rubric has gates, factors or values in place of the sum"
            fix = "leave gates, multiply, truncated_value and no_answer_value out of the rubric, or sum first"
            raise ConfigError(f"{stage.name}.advantage.order", problem, fix=fix)


def _check_tensor_parallel(settings: Settings) -> None:
    """Ray reserves the devices that an engine asks for."""
    runtime = settings.runtime.config
    own = vars(settings.engine.config).get("tensor_parallel", 1)
    if isinstance(runtime, ray.Config) and own != runtime.tensor_parallel:
        problem = f"{runtime.tensor_parallel} devices are reserved per engine, which spreads its model over {own}"
        fix = "set engine.tensor_parallel and runtime.tensor_parallel to the same number"
        raise ConfigError("runtime.tensor_parallel", problem, fix=fix)


def _check_turns(settings: Settings, stages: Sequence[StageSettings]) -> None:
    """Engines that sleep while the learner trains cannot sample meanwhile."""
    runtime = settings.runtime.config
    if not isinstance(runtime, ray.Config) or not runtime.colocate:
        return
    for stage in stages:
        if isinstance(stage.config, online.Config) and stage.config.max_staleness:
            problem = (
                f"with runtime.colocate engines sleep while the learner trains, so that no rollouts can run"
                f" {stage.config.max_staleness} steps ahead"
            )
            fix = f"set {stage.name}.max_staleness=0, or runtime.colocate=false to give engines devices of their own"
            raise ConfigError(f"{stage.name}.max_staleness", problem, fix=fix)


def _check_scorers(settings: Settings, stages: Sequence[StageSettings]) -> None:
    """Searches are scored by a reward of this run."""
    samplers = {"evaluation": settings.evaluation.sampler}
    sampling = (generate.Config, online.Config)
    samplers |= {stage.name: stage.config.sampler for stage in stages if isinstance(stage.config, sampling)}
    for where, sampler in samplers.items():
        scorer = sampler.config.scorer if isinstance(sampler.config, ScoredConfig) else ""
        if scorer and scorer not in settings.rewards:
            fix = f"{did_you_mean(scorer, settings.rewards)}; weight: 0 keeps a reward out of training"
            raise ConfigError(f"{where}.sampler.scorer", f"there is no reward '{scorer}'", fix=fix)


def _stage(name: str, blocks: Mapping[str, Any]) -> StageSettings:
    if name not in blocks:
        fix = f"add a block '{name}:' with a key `loop`; {did_you_mean(name, blocks)}"
        raise ConfigError("stages", f"there is no block '{name}'", fix=fix)
    block = dict(blocks[name])
    loop = block.pop("loop")
    if loop not in LOOPS:
        raise ConfigError(f"{name}.loop", f"'{loop}' is not a loop", fix=did_you_mean(str(loop), LOOPS))
    module = component.resolve("rlhf.loops", loop, where=f"{name}.loop")
    return StageSettings(name, loop, module, config.build(module.Config, block, name))


def _with_task_rewards(settings: Settings) -> Settings:
    if settings.rewards:
        return settings
    task = settings.task
    defaults = mix.default_rewards(task.config) if isinstance(task.config, mix.Config) else task.module.REWARDS
    tree = config.to_tree(settings) | {"rewards": defaults}
    return config.build(Settings, tree)


def plain(settings: Settings) -> Settings:
    """The same settings with the default engine and the rewards that the task has by itself, never given up."""
    tree = config.to_tree(settings)
    kept = {key: value for key, value in tree.items() if key not in ("engine", "rewards", "rubric", "budget")}
    return _with_task_rewards(config.build(Settings, kept))
