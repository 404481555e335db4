"""The offline loop: a dataset -> packed batches -> learner. Supervised fine-tuning and everything like it.

    consumes    examples: the task's own, those of an earlier generate stage, or a JSONL file
    produces    weights v(n+1); the engine gets them when an evaluation is due
    waits for   nothing

What an example is (a worked solution, a pair, …) is up to a file in `rlhf/data/examples`, and what is learnt from it is
up to the loss; in between, transforms (`rlhf/data/transforms`) may change samples each time that they are drawn. A
batch is a number of examples, whatever their length; the learner packs them under its token budget. A loss that trains
a process reward model leaves the policy alone: see `rlhf.loops.prm`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from rlhf.core.component import Component
from rlhf.core.config import slot, slots
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import Example
from rlhf.core.protocols import Task
from rlhf.core.seeding import derive_seed
from rlhf.core.training import Head, Sample
from rlhf.data import sources
from rlhf.data.packing import pack
from rlhf.learner import learner
from rlhf.loops import critic, prm, updates
from rlhf.loops.prm import PrmConfig
from rlhf.loops.prompts import ExampleStream, of_tasks
from rlhf.loops.stage import LearnerRequest, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASK = "task"
_RENDERED = 64
"""Examples whose length is counted in tokens before a run starts."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One supervised stage."""

    steps: int = 100
    """Optimizer updates."""
    batch_size: int = 64
    """Examples per update, global."""
    data: str = TASK
    """`task` for the task's own examples, the name of an earlier generate stage, or a JSONL/Parquet path; for a process
    reward model, solutions with step labels."""
    examples: Component = slot("rlhf.data.examples", "solutions")
    """What the rows of the data are."""
    transforms: dict[str, Component] = slots("rlhf.data.transforms")
    """What changes samples each time that they are drawn, by label, in this order."""
    tasks: list[str] = field(default_factory=list[str])
    """With `data: task`, learn from examples of these tasks only, for a task of several parts; empty learns from all.
    """
    loss: Component = slot("rlhf.losses", "ce")
    """What the learner minimises."""
    prm: PrmConfig = field(default_factory=PrmConfig)
    """With `loss.name: prm`: the process reward model."""
    learner: learner.Config = field(default_factory=learner.Config)
    evaluate_every: int = 100
    """Steps between evaluations of held-out prompts; 0 evaluates at the end of the stage only."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} does nothing", fix="use 1 or more")
        if not self.trains_prm:
            critic.check_head("loss", self.loss, Head.LOGITS)
        if self.tasks and self.data != TASK:
            problem = f"chooses among the task's examples, but the stage learns from '{self.data}'"
            raise ConfigError("tasks", problem, fix=f"leave it empty, or set data: {TASK}")
        self._check_transforms()

    @property
    def trains_prm(self) -> bool:
        """Whether what learns is a process reward model, beside the policy."""
        return learner.head(self.loss) is Head.STEPS

    def _check_transforms(self) -> None:
        declared = self.loss.module.streams(self.loss.config)
        for label, transform in self.transforms.items():
            missing = [s for s in transform.module.streams(transform.config) if s not in declared]
            if self.trains_prm or missing:
                where, lacks = f"transforms.{label}", ", ".join(missing) or "samples of a policy"
                fix = "leave it out, or choose a loss that does"
                raise ConfigError(where, f"changes {lacks}, which the loss '{self.loss.name}' does not use", fix=fix)


async def run(cfg: Config, stage: Stage) -> None:
    """Train for `cfg.steps` updates, from wherever the stage's progress stands."""
    if cfg.trains_prm:
        await prm.train(cfg, stage, data=None if cfg.data == TASK else _file(cfg, stage))
        return
    trained = await stage.spawn_learner(LearnerRequest(cfg.loss, cfg.learner, stage.sampling, cfg.steps))
    sync = await stage.start(trained)
    examples = ExampleStream(_dataset(cfg, stage), seed=stage.seed, name=stage.name)
    for _ in stage.steps(cfg.steps):
        with stage.phase("data"):
            drawn = examples.take(stage.progress.cursor, cfg.batch_size)
            samples = [sample for example in drawn for sample in _render(cfg, example, stage.tokenizer)]
            samples = [_transformed(cfg, sample, stage) for sample in samples]
            stage.progress.cursor += cfg.batch_size
            batches = pack(samples, token_budget=cfg.learner.micro_batch_tokens, multiple=trained.ranks)
        stats = await updates.supervised(samples, batches, stage=stage, learner=trained, name="actor")
        stage.progress.version = stats.version
        await stage.end_step(trained, sync, total=cfg.steps, synced=False)


def given(cfg: Config, task: Task) -> list[Example]:
    """What a task gives to learn from.

    Raises:
        DataError: nothing.
    """
    module = cfg.examples.module
    offered = [module.given(prompt, cfg.examples.config) for prompt in of_tasks(task.train(), cfg.tasks)]
    found = [example for example in offered if example is not None]
    if not found:
        fix = "use a dataset that has them, or start with an online stage"
        raise DataError("task", f"has no {cfg.examples.name} to learn from", fix=fix)
    return found


def longest(cfg: Config, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the largest unit among the examples that have the most characters."""

    def characters(example: Example) -> int:
        return len(repr(example))

    rendered = (_render(cfg, example, tokenizer) for example in sorted(examples, key=characters)[-_RENDERED:])
    return max(sum(len(sample.tokens) for sample in samples) for samples in rendered)


def source(cfg: Config, stages: Collection[str]) -> str | None:
    """The file or hub id that a stage reads besides the task's data; None when it is the task or another stage."""
    return None if cfg.data in (TASK, *stages) else cfg.data


def measured_on(cfg: Config) -> str | None:
    """The file or hub id that a process reward model is measured on; None where it is the task."""
    return cfg.prm.held_out if cfg.trains_prm else None


def batch_arithmetic(cfg: Config) -> Mapping[str, str]:
    """What one step does, for `rlhf plan`."""
    return {
        "updates": f"{cfg.batch_size} samples per optimizer update, packed into micro-batches of at most"
        f" {cfg.learner.micro_batch_tokens} tokens",
        "in all": f"{cfg.steps} updates = {cfg.steps * cfg.batch_size} samples",
    }


def _dataset(cfg: Config, stage: Stage) -> Sequence[Example]:
    if cfg.data == TASK:
        return given(cfg, stage.task)
    name = _file(cfg, stage)
    rows = sources.rows(name, split="train", where=f"{stage.name}.data")
    read = partial(cfg.examples.module.read, cfg=cfg.examples.config)
    return [read(row, where=f"{name}, row {n}", name=f"{stage.name}-{n}") for n, row in enumerate(rows, start=1)]


def _render(cfg: Config, example: Example, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    return cfg.examples.module.render(example, cfg.examples.config, tokenizer)


def _transformed(cfg: Config, sample: Sample, stage: Stage) -> Sample:
    """The sample after all transforms; what they draw follows from run seed, step, label and sample."""
    step, done = stage.progress.step, (stage.progress.stage_step - 1) / cfg.steps
    for label, transform in cfg.transforms.items():
        rng = Random(derive_seed(stage.seed, "transform", stage.name, label, step, sample.id))
        sample = transform.module.transform(sample, transform.config, rng=rng, done=done, tokenizer=stage.tokenizer)
    return sample


def _file(cfg: Config, stage: Stage) -> str:
    """The file or hub id that a stage learns from: a generate stage's, or the one that is named."""
    generated = stage.folder.data / f"{cfg.data}.jsonl"
    if generated.exists() and not generated.stat().st_size:
        fix = "start from a better model, draw more samples, or select: all"
        raise DataError(f"{stage.name}.data", f"stage '{cfg.data}' selected no sample to learn from", fix=fix)
    return str(generated if generated.exists() else Path(cfg.data))
