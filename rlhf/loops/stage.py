"""What a loop is given: the roles, the data, and the places to record to. Made by the pipeline, one per stage.

A loop owns its order of events; everything with a cadence of its own (evaluation, checkpoints, logs) is one call to
`Stage.end_step`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlhf.core.component import Component
from rlhf.core.errors import ConfigError
from rlhf.core.protocols import EngineHandle, Grader, LearnerHandle, ReferenceHandle, Task, WeightSync
from rlhf.core.run_folder import RunFolder
from rlhf.core.sampling import Sampling, Transforms
from rlhf.core.types import Group, Json, RewardOut, Trajectory
from rlhf.learner import checkpoint, learner
from rlhf.loops.budget import Giver
from rlhf.loops.care import CareConfig, Screen
from rlhf.loops.evaluate import Evaluator, Result, measure
from rlhf.loops.interrupt import Interrupt
from rlhf.loops.recorder import Recorder

CRITIC = "critic"
"""Folder of a checkpoint that holds a critic."""
CURRICULUM = "curriculum.json"
"""File of a checkpoint that holds what a curriculum knows."""
JUDGES = "judges_sample"
"""Column of a prompt, and key of a record: the id of the sample that is to be judged."""
PRM = "prm"
"""Folder of a checkpoint that holds a process reward model."""
REFERENCE = "reference"
"""Folder of a checkpoint that holds a reference which follows the policy."""
REWARD_MODEL = "reward_model"
"""Folder of a checkpoint that holds a reward model."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the run can be continued from."""

    every: int = 20
    """Steps between checkpoints; the end of a stage always has one."""
    keep: int = 2
    """Newest checkpoints to keep, besides the ends of stages; 0 keeps all."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError("every", f"{self.every} is not a number of steps", fix="use 1 or more")


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run stands; stored with every checkpoint and the only state besides weights and optimizer."""

    step: int = 0
    """Global, over all stages."""
    stage: int = 0
    stage_step: int = 0
    version: int = 0
    """Optimizer updates behind the weights."""
    stage_version: int = 0
    """`version` when the stage began."""
    critic_version: int = 0
    """Updates of the stage's critic."""
    kl_coef: float | None = None
    """Of the KL in the reward in the next step of the stage, where it follows a target."""
    cursor: int = 0
    """Training prompts or rows of this stage that a step has used; those in flight are drawn again after a restart."""
    tokens: int = 0
    """Generated and trained tokens of the run."""
    accuracy: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Evaluations at the ends of stages, oldest first: of the primary task, and of any others under `others`."""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    stage_ends: list[int] = field(default_factory=list[int])
    stopped: str = ""
    """Why the run was given up before its last step; empty where it was not."""

    def enter(self, stage: int) -> None:
        """Begin a stage."""
        self.stage, self.stage_step, self.stage_version, self.cursor = stage, 0, self.version, 0
        self.critic_version, self.kl_coef = 0, None


@dataclass(frozen=True, slots=True)
class LearnerRequest:
    """What a loop asks the runtime for."""

    loss: Component | None
    cfg: learner.Config
    transforms: Transforms
    total_updates: int
    moves: bool = False
    """With no loss, it follows the policy."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """One stage of a pipeline, ready to run."""

    name: str
    seed: int
    config: str
    """What identifies the run's config (`Experiment.identity`)."""
    task: Task
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    grader: Grader
    engine: EngineHandle
    began: Path
    """Folder with the weights that the stage started from."""
    spawn_learner: Callable[[LearnerRequest], Awaitable[LearnerHandle]]
    """A learner with the current weights; with no loss a frozen one."""
    spawn_reference: Callable[[LearnerRequest], Awaitable[LearnerHandle]]
    """A learner that does not train, with the weights that the stage started from, or if it moves, with those of the
    stage's newest checkpoint."""
    spawn_critic: Callable[[LearnerRequest, str | None, str], Awaitable[LearnerHandle]]
    """A critic, or a reward model: that of the stage's newest checkpoint, in the folder that is named last, or made of
    the model at a path, or that of a stage, or of the current weights."""
    find_model: Callable[[str], Path]
    """Folder of a model: an earlier stage's last weights by its name, or a path or hub id."""
    spawn_frozen: Callable[[LearnerRequest, Path], Awaitable[LearnerHandle]]
    """A learner that does not train, with the weights in a folder."""
    make_sync: Callable[[LearnerHandle, EngineHandle], WeightSync]
    folder: RunFolder
    recorder: Recorder
    evaluators: Sequence[Evaluator]
    """One per held-out task, the primary first."""
    evaluate_every: int
    """Steps between evaluations; 0 evaluates at the end of the stage only."""
    checkpoints: CheckpointConfig
    progress: Progress
    trained: LearnerHandle | None = None
    """The stage's learner, once its loop has made it."""
    reference: ReferenceHandle | None = None
    moving: LearnerHandle | None = None
    """The reference, where it follows the policy, so that checkpoints hold it."""
    teacher: LearnerHandle | None = None
    critic: LearnerHandle | None = None
    """A second model that learns in this stage: a critic, or a reward model of answers or steps."""
    second: str = CRITIC
    """Folder of it in a checkpoint."""
    curriculum: Callable[[], Json] | None = None
    """What its curriculum knows now, where it has one."""
    giver: Giver | None = None
    """Says when to give up, in the last stage of a run that may be."""
    results: Sequence[Result] = ()
    """The last evaluation."""
    stop_before: int | None = None
    """Global step to stop in front of, for a replay."""
    interrupt: Interrupt = field(default_factory=Interrupt)
    """Whether somebody wants the run to stop."""
    screen: Screen = field(default_factory=lambda: Screen(CareConfig()))
    """What files that the stage reads are compared with."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Count the time inside under this name."""
        return self.recorder.phase(name)

    def left(self, total: int) -> range:
        """Global numbers of the steps still to do, 1-based.

        Args:
            total: steps of the stage.
        """
        first = self.progress.step + 1
        end = first + total - self.progress.stage_step
        return range(first, end if self.stop_before is None else min(end, self.stop_before))

    def steps(self, total: int) -> Iterator[int]:
        """The same numbers, one by one; `progress` moves on with each."""
        for step in self.left(total):
            if self.progress.stopped:
                break
            self.interrupt.hold()
            self.progress.step = step
            self.progress.stage_step += 1
            yield step
        self.interrupt.release()

    async def start(self, trained: LearnerHandle, *, restore: bool = True) -> WeightSync:
        """Bring the learner to where the run stands and the engine to the learner's weights.

        Args:
            restore: the learner has an optimizer whose state continues in the middle of a stage.
        """
        if restore and self.progress.stage_step:
            await trained.load(self.folder.checkpoints / f"step_{self.progress.step}")
        self.trained = trained
        sync = self.make_sync(trained, self.engine)
        await self.push(sync)
        return sync

    @property
    def saved_critic(self) -> Path:
        """The second model of the checkpoint at which the stage goes on."""
        return self.folder.checkpoints / f"step_{self.progress.step}" / self.second

    async def push(self, sync: WeightSync) -> None:
        """Give the engine the learner's weights."""
        with self.phase("sync"):
            await sync.wait_pull()
            await sync.push(self.progress.version)
            await sync.wait_push()
            await sync.pull()

    async def end_step(self, trained: LearnerHandle, sync: WeightSync, *, total: int, synced: bool) -> None:
        """Evaluate, record and checkpoint, each when it is due; a checkpoint also before the end on a signal.

        Args:
            total: steps of the stage.
            synced: the engine already holds the learner's weights.

        Raises:
            Interrupted: somebody wants the run to stop, and it has a checkpoint of this step now.
        """
        step, last = self.progress.step, self.progress.stage_step == total
        if due := last or bool(self.evaluate_every and self.progress.stage_step % self.evaluate_every == 0):
            if not synced:
                await self.push(sync)
            await self.evaluate(keep=last)
        self.recorder.step(step, self.name)
        if due and not last and self.giver is not None:
            begun = step - self.progress.stage_step
            why = self.giver.why(last=begun + total, done=self.progress.stage_step / total)
            if why:
                self.progress.stopped, last = why, True
                self._keep(self.results)
        self.progress.seconds = self.recorder.seconds
        stopping = self.interrupt.requested
        if last or stopping or self.progress.stage_step % self.checkpoints.every == 0:
            with self.phase("checkpoint"):
                await self.save(trained, end_of_stage=last)
        if stopping:
            self.interrupt.heed(step)

    async def close(self) -> None:
        """Give back what the stage's learners hold; its engine goes on to the next stage."""
        for held in (self.trained, self.reference, self.teacher, self.critic):
            if held is not None:
                await held.close()

    async def evaluate(self, *, keep: bool) -> None:
        """Measure held-out accuracy with the engine's weights; `keep` stores it as the end of a stage."""
        with self.phase("eval"):
            results = await measure(self.evaluators, self.engine, self.grader)
        where = {"step": self.progress.step, "stage": self.name, "tokens": self.progress.tokens}
        for result in results:
            self.recorder.add(result.metrics())
            self.recorder.evaluation([{**where, **row} for row in result.per_prompt])
        self.results = results
        if keep:
            self._keep(results)

    def _keep(self, results: Sequence[Result]) -> None:
        """Store an evaluation as that of the end of the stage."""
        primary, *others = results
        entry = {"stage": self.name, "step": self.progress.step, **_measured(primary)}
        more = {"others": {result.task: _measured(result) for result in others}} if others else {}
        self.progress.accuracy.append(entry | more)

    def record_samples(self, groups: Sequence[Group], advantages: Mapping[str, float]) -> None:
        """Append scored trajectories to `samples.jsonl`; an advantage of null marks a sample left out of training."""
        with self.phase("log"):
            rows = sample_rows(groups, advantages, step=self.progress.step, stage=self.name)
            self.recorder.samples(self.progress.step, list(rows))

    async def save(self, trained: LearnerHandle, *, end_of_stage: bool) -> None:
        """Write a checkpoint and drop the old ones."""
        if end_of_stage:
            self.progress.stage_ends.append(self.progress.step)
        state = {"progress": asdict(self.progress), "offsets": self.folder.offsets()}
        with checkpoint.writing(self.folder.checkpoints, self.progress.step, state=state) as hidden:
            await trained.save(hidden)
            if self.curriculum is not None:
                (hidden / CURRICULUM).write_text(json.dumps(self.curriculum()), encoding="utf-8")
            if self.critic is not None:
                (hidden / self.second).mkdir()
                await self.critic.save(hidden / self.second)
            if self.moving is not None:
                (hidden / REFERENCE).mkdir()
                await self.moving.save(hidden / REFERENCE)
        checkpoint.prune(self.folder.checkpoints, keep=self.checkpoints.keep, protect={0, *self.progress.stage_ends})


def sample_rows(
    groups: Sequence[Group], advantages: Mapping[str, float], *, step: int, stage: str
) -> Iterator[dict[str, Json]]:
    """One record per trajectory: all that is needed to read, re-score and generate it again. `versions`,
    `sampled` and `per_token`, one per token, stand only where a sample went on across a weight update, where tokens
    were put there (0), or where they have rewards;
    `greedy`, the greedy answer to the prompt, with the first sample of a group that is compared with it."""
    for group in groups:
        for g, (t, reward) in enumerate(zip(group.trajectories, group.rewards, strict=True)):
            yield {
                "id": t.id,
                "step": step,
                "stage": stage,
                "task": group.prompt.task,
                "prompt_id": t.prompt_id,
                "index": t.index,
                "prompt": group.prompt.messages[-1].content,
                "text": t.text,
                "stop": t.stop.value,
                "gold": group.prompt.gold,
                **_graded(reward),
                "advantage": advantages.get(t.id),
                **_sampled(t),
                **({"greedy": _greedy(group.greedy)} if group.greedy is not None and g == 0 else {}),
                **{key: group.prompt.columns[key] for key in (JUDGES,) if key in group.prompt.columns},
            }


def _graded(reward: RewardOut) -> dict[str, Json]:
    return {
        "value": reward.value,
        "verdict": reward.verdict.value,
        "reason": reward.reason,
        "extracted": reward.extracted,
        "breakdown": dict(reward.breakdown),
        **({"weights": dict(reward.weights)} if reward.weights else {}),
        **({"per_token": reward.per_token} if reward.per_token else {}),
    }


def _sampled(t: Trajectory) -> dict[str, Json]:
    return {
        "policy_version": t.policy_version,
        **({"versions": t.versions} if t.versions else {}),
        **({"sampled": list(map(int, t.sampled))} if t.sampled else {}),
        "length": len(t.tokens),
        "prompt_tokens": t.prompt_tokens,
        "tokens": t.tokens,
        "logprobs": [round(x, 6) for x in t.logprobs],
    }


def _greedy(group: Group) -> dict[str, Json]:
    [t], [reward] = group.trajectories, group.rewards
    return {"id": t.id, "index": t.index, "text": t.text, "stop": t.stop.value, **_graded(reward), **_sampled(t)}


def _measured(result: Result) -> dict[str, Any]:
    return asdict(result.sampled) if result.sampled is not None else {"mean": None, "n": 0}
