"""The offline loop: a dataset -> packed batches -> learner. Supervised fine-tuning and everything like it.

    consumes    examples: the task's own, those of an earlier generate stage, or a JSONL file
    produces    weights v(n+1); the engine gets them when an evaluation is due
    waits for   nothing

What an example is (a worked solution, a pair, …) is up to a file in `rlhf/data/examples`, and what is learnt from it is
up to the loss; the two agree on what is known of answers. In between, transforms (`rlhf/data/transforms`) may change
samples each time that they are drawn. A batch is a number of examples, whatever their length; the learner packs them
under its token budget. A loss that compares with a reference gets one of the weights that the stage began with
(`rlhf.loops.references`). A loss that trains a reward model leaves the policy alone: `rlhf.loops.beside`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from rlhf.core.component import Component
from rlhf.core.config import slot, slots
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import Example
from rlhf.core.protocols import LearnerHandle, Task
from rlhf.core.sampling import Transforms
from rlhf.core.seeding import derive_seed
from rlhf.core.training import Head, Labels, Sample, Stream
from rlhf.core.types import Prompt
from rlhf.data import sources
from rlhf.data.packing import pack
from rlhf.data.sources import Row
from rlhf.learner import learner
from rlhf.loops import beside, care, critic, held_out, reference, references, teacher, updates
from rlhf.loops.beside import RewardModelConfig
from rlhf.loops.held_out import HeldOutConfig
from rlhf.loops.prompts import ExampleStream, of_tasks
from rlhf.loops.reference import ReferenceConfig
from rlhf.loops.references import References
from rlhf.loops.stage import PRM, REWARD_MODEL, LearnerRequest, Stage
from rlhf.loops.teacher import LikeliestConfig
from rlhf.models import adapters

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
    """`task` for the task's own examples, the name of an earlier generate stage, or a JSONL/Parquet path."""
    examples: Component = slot("rlhf.data.examples", "solutions")
    """What the rows of the data are."""
    transforms: dict[str, Component] = slots("rlhf.data.transforms")
    """What changes samples each time that they are drawn, by label, in this order."""
    tasks: list[str] = field(default_factory=list[str])
    """With `data: task`, learn from examples of these tasks only, for a task of several parts; empty learns from all.
    """
    loss: Component = slot("rlhf.losses", "ce")
    """What the learner minimises."""
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    precompute_reference: bool = False
    """Ask the reference about all answers once before training, so that its memory is free again, instead of with every
    batch; for losses that compare with one."""
    teacher: LikeliestConfig = field(default_factory=LikeliestConfig)
    """With `loss.name: distill`: who says what is likeliest."""
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)
    start: str = ""
    """Stage whose last weights to start from, or `model` for what the run starts from; empty goes on with the stage
    before."""
    learner: learner.Config = field(default_factory=learner.Config)
    evaluate_every: int = 100
    """Steps between evaluations of held-out prompts; 0 evaluates at the end of the stage only."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} does nothing", fix="use 1 or more")
        if not self.beside:
            critic.check_head("loss", self.loss, Head.LOGITS)
        _check_examples(self.loss, self.examples)
        if self.tasks and self.data != TASK:
            problem = f"chooses among the task's examples, but the stage learns from '{self.data}'"
            raise ConfigError("tasks", problem, fix=f"leave it empty, or set data: {TASK}")
        self._check_transforms()
        self._check_reference()

    @property
    def beside(self) -> str:
        """What learns beside the policy, as its folder in a checkpoint is called; empty where the policy learns."""
        if learner.head(self.loss) is Head.STEPS:
            return PRM
        scores = learner.head(self.loss) is Head.VALUES and learner.labels(self.loss) is not Labels.NONE
        return REWARD_MODEL if scores else ""

    @property
    def needs_reference(self) -> bool:
        """Whether the loss looks at a reference model."""
        return Stream.REF_LOGPROBS in self.loss.module.streams(self.loss.config)

    def _check_reference(self) -> None:
        if self.precompute_reference and not self.needs_reference:
            problem = f"would ask a reference that '{self.loss.name}' does not look at"
            raise ConfigError("precompute_reference", problem, fix="use false")
        if self.reference.every and not self.needs_reference:
            problem = f"moves a reference that '{self.loss.name}' does not look at"
            raise ConfigError("reference.every", problem, fix="use 0")
        changes = {
            "about samples that transforms change every time": bool(self.transforms),
            "a reference that follows the policy": bool(self.reference.every),
            "a policy without its adapters, which takes no memory of its own": adapters.adds(self.learner.trainable),
        }
        for what in (what for what, there in changes.items() if there and self.precompute_reference):
            raise ConfigError("precompute_reference", f"would ask once {what}", fix="use false")
        if Stream.KL in self.loss.module.streams(self.loss.config) and self.batch_size < 2:
            problem = f"{self.batch_size} question has no other one's answer to be given"
            raise ConfigError(
                "batch_size", problem, fix="use 2 or more; the more, the better is the estimate of the KL"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss looks at what a teacher finds likeliest."""
        return Stream.TOPK in self.loss.module.streams(self.loss.config)

    def _check_transforms(self) -> None:
        declared = self.loss.module.streams(self.loss.config)
        for label, transform in self.transforms.items():
            missing = [s for s in transform.module.streams(transform.config) if s not in declared]
            if self.beside or missing:
                where, lacks = f"transforms.{label}", ", ".join(missing) or "samples of a policy"
                fix = "leave it out, or choose a loss that does"
                raise ConfigError(where, f"changes {lacks}, which the loss '{self.loss.name}' does not use", fix=fix)


async def run(cfg: Config, stage: Stage) -> None:
    """Train for `cfg.steps` updates, from wherever the stage's progress stands."""
    training, measured_on = _data(cfg, stage)
    if cfg.beside:
        await beside.train(cfg, stage, training=training, measured_on=measured_on)
        return
    examples = ExampleStream(training, seed=stage.seed, name=stage.name)

    def units(drawn: Sequence[Example]) -> list[list[Sample]]:
        return [_render(cfg, example, stage.tokenizer) for example in drawn]

    def draws() -> Iterator[list[list[Sample]]]:
        for step in range(cfg.steps):
            yield units(examples.take(step * cfg.batch_size, cfg.batch_size))
        yield units(measured_on)

    def once() -> list[list[Sample]]:
        return units([*examples.take(0, min(len(training), cfg.steps * cfg.batch_size)), *measured_on])

    lesson = await teacher.likeliest(cfg, stage, once)
    known = await references.once(cfg, stage, draws) if cfg.precompute_reference else None
    # Teacher and student speak of their whole distributions, not of those that are sampled from.
    transforms = Transforms() if cfg.needs_teacher else stage.sampling
    request = LearnerRequest(cfg.loss, cfg.learner, transforms, cfg.steps)
    trained = await stage.spawn_learner(request)
    if cfg.needs_reference and known is None:
        await reference.start(cfg.reference, stage, trained, request)
    compared = known or references.beside(cfg, stage)
    sync = await stage.start(trained)
    for _ in stage.steps(cfg.steps):
        with stage.phase("data"):
            drawn = lesson(units(examples.take(stage.progress.cursor, cfg.batch_size)))
            drawn = [[_transformed(cfg, sample, stage) for sample in unit] for unit in drawn]
            stage.progress.cursor += cfg.batch_size
        with stage.phase("ref"):
            samples = await compared.completed(drawn, policy=trained)
        batches = pack(samples, token_budget=cfg.learner.micro_batch_tokens, multiple=trained.ranks)
        stats = await updates.supervised(samples, batches, stage=stage, learner=trained, name="actor")
        stage.progress.version = stats.version
        if measured_on and held_out.due(cfg, stage):
            await _measure(cfg, stage, lesson(units(measured_on)), compared, trained)
        await reference.follow(cfg.reference, stage, trained)
        await stage.end_step(trained, sync, total=cfg.steps, synced=False)


def given(cfg: Config, task: Task) -> list[Example]:
    """What a task gives to learn from.

    Raises:
        DataError: nothing.
    """
    found = _of_prompts(cfg, task.train())
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


def batch_arithmetic(cfg: Config) -> Mapping[str, str]:
    """What one step does, for `rlhf plan`."""
    what = "pairs" if learner.labels(cfg.loss) is Labels.PAIRS else "samples"
    told = {
        "updates": f"{cfg.batch_size} {what} per optimizer update, packed into micro-batches of at most"
        f" {cfg.learner.micro_batch_tokens} tokens",
        "in all": f"{cfg.steps} updates = {cfg.steps * cfg.batch_size} {what}",
    }
    if cfg.needs_reference:
        when = "once before training" if cfg.precompute_reference else "with every update"
        follows = f", moving every {cfg.reference.every} steps" if cfg.reference.every else ""
        told["reference"] = f"the weights that the stage begins with{follows}, asked {when}"
    if cfg.needs_teacher:
        told["teacher"] = f"{cfg.teacher.path} says the {cfg.teacher.k} likeliest tokens everywhere, before training"
    return told


def _check_examples(loss: Component, examples: Component) -> None:
    """Refuse examples that do not say of answers what a loss wants to know, or say what it does not look at."""
    wanted, known = learner.labels(loss), getattr(examples.module, "LABELS", Labels.NONE)
    if known is wanted or (wanted is Labels.JUDGED and known is Labels.PAIRS):
        return
    names = {Labels.NONE: "solutions", Labels.PAIRS: "pairs", Labels.JUDGED: "judged", Labels.STEPS: "steps"}
    needs = {
        Labels.NONE: "learns every answer",
        Labels.PAIRS: "compares two answers to a question",
        Labels.JUDGED: "learns from answers that are good or bad",
        Labels.STEPS: "learns how good the steps of an answer are",
    }
    problem = f"'{examples.name}' does not fit the loss '{loss.name}', which {needs[wanted]}"
    raise ConfigError("examples.name", problem, fix=f"set examples.name={names[wanted]}, or choose another loss")


def _data(cfg: Config, stage: Stage) -> tuple[Sequence[Example], Sequence[Example]]:
    """What to learn from, and what to measure on."""
    training, measured_on = _dataset(cfg, stage), list[Example]()
    own = cfg.held_out
    if own.path is not None:
        measured_on = _read(cfg, own.path, where=f"{stage.name}.held_out.path", name=f"{stage.name}-held-out")
    elif own.set_aside:
        training, measured_on = held_out.split(training, count=own.set_aside, where=f"{stage.name}.data")
    elif learner.labels(cfg.loss) is not Labels.NONE:
        measured_on = _of_prompts(cfg, stage.task.held_out())
    return training, measured_on[: own.most]


def _dataset(cfg: Config, stage: Stage) -> Sequence[Example]:
    if cfg.data == TASK:
        return given(cfg, stage.task)
    return _read(cfg, _file(cfg, stage), where=f"{stage.name}.data", name=stage.name, stage=stage)


def _read(cfg: Config, source: str, *, where: str, name: str, stage: Stage | None = None) -> list[Example]:
    """The examples of a file or hub dataset; those that are trained on, in a stage, without what must not be."""
    read = partial(cfg.examples.module.read, cfg=cfg.examples.config)
    rows = list(enumerate(sources.rows(source, split="train", where=where), start=1))
    if stage is not None:
        rows = _screened(cfg, rows, source, stage)
    return [read(row, where=f"{source}, row {n}", name=f"{name}-{n}") for n, row in rows]


def _screened(cfg: Config, rows: list[tuple[int, Row]], source: str, stage: Stage) -> list[tuple[int, Row]]:
    """Rows without what must not be trained on; a wrong answer must not where the answer is what is learnt."""
    removed = stage.screen.rows(rows, where=source)
    left = _without(rows, removed)
    if learner.labels(cfg.loss) is Labels.NONE:
        noisy = stage.screen.noisy(left, where=source)
        removed, left = removed + noisy, _without(left, noisy)
    care.write(stage.folder.removed, stage.name, removed)
    return left


def _without(rows: list[tuple[int, Row]], removed: Sequence[care.Removed]) -> list[tuple[int, Row]]:
    gone = {one.name for one in removed}
    return [(n, row) for n, row in rows if str(n) not in gone]


def _of_prompts(cfg: Config, prompts: Sequence[Prompt]) -> list[Example]:
    """What a task gives with prompts."""
    given = cfg.examples.module.given
    offered = [given(prompt, cfg.examples.config) for prompt in of_tasks(prompts, cfg.tasks)]
    return [example for example in offered if example is not None]


async def _measure(
    cfg: Config, stage: Stage, units: Sequence[Sequence[Sample]], compared: References, trained: LearnerHandle
) -> None:
    with stage.phase("eval"):
        samples = await compared.completed(units, policy=trained)
        budget = cfg.learner.micro_batch_tokens
        found = await held_out.measure(cfg.loss, samples, learner=trained, token_budget=budget, name=stage.name)
    stage.recorder.add(found)


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
