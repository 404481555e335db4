"""A teacher: a frozen model that a stage's own learns from, beside or instead of the data.

It exists where the loss asks for what it finds likeliest (offline: `Stream.TOPK`) or the advantages ask for its
log-probs of sampled tokens (online: `TEACHER`). Its tokens must mean the same as the student's, which is checked before
a run starts. Offline it speaks once, before training, and is gone when that begins; what it said lies in the run's
folder, `data/<stage>.topk.safetensors`, from which this run goes on after a kill and others may learn
(`rlhf.data.topk`). Online it reads what was sampled, step by step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.metrics import Mean, mean_of
from rlhf.core.sampling import Transforms
from rlhf.core.training import Sample, TopK
from rlhf.core.types import Group
from rlhf.data import topk
from rlhf.data.packing import pack
from rlhf.learner import learner
from rlhf.loops.stage import LearnerRequest, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf.loops.offline import Config

Units: TypeAlias = "Sequence[Sequence[Sample]]"
"""The samples of each example."""
Lesson: TypeAlias = "Callable[[Units], list[list[Sample]]]"
"""Gives samples what a teacher said of them."""
_AT_ONCE = 256
"""Samples that are asked about together."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Who teaches, where somebody has to."""

    path: str | None = None
    """Folder or hub id of the teacher, or an earlier stage of this run, whose last weights teach."""


@dataclass(frozen=True, kw_only=True)
class LikeliestConfig(TeacherConfig):
    """Who says what is likeliest. `path` may also be a file that a run has written, `data/<stage>.topk.safetensors`."""

    k: int = 5
    """Tokens per target. FIRST has 5, which hold nearly all of the mass; what is left is one more outcome, or left out.
    """

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError("k", f"{self.k} tokens say nothing", fix="use 5")

    @property
    def from_file(self) -> bool:
        """Whether what the teacher says is there already."""
        return self.path is not None and self.path.endswith(topk.SUFFIX)


def check(
    cfg: TeacherConfig, student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase | None, *, where: str
) -> None:
    """Refuse a teacher whose tokens mean something else, or who is asked for more of them than there are.

    Args:
        teacher: its tokenizer; None for a file, or an earlier stage.

    Raises:
        DataError: naming the difference and the fix.
    """
    if isinstance(cfg, LikeliestConfig) and cfg.k > len(student):
        raise ConfigError(f"{where}.k", f"there are only {len(student)} tokens", fix=f"use at most {len(student)}")
    if isinstance(cfg, LikeliestConfig) and cfg.from_file:
        same = topk.read(Path(str(cfg.path))).origin.get("vocabulary") == topk.vocabulary(student)
        differs = "" if same else "it was written for another vocabulary"
    else:
        differs = _difference(student.get_vocab(), teacher.get_vocab()) if teacher is not None else ""
    if differs:
        problem = f"the teacher '{cfg.path}' does not have the tokens of the model that is to learn: {differs}"
        fix = "use a teacher of the same family; to learn across vocabularies, train on texts that it has sampled"
        raise DataError(f"{where}.path", problem, fix=fix)


async def likeliest(cfg: Config, stage: Stage, samples: Callable[[], Units]) -> Lesson:
    """Lets the teacher of an offline stage speak, or reads what it said; a stage without one learns from what it draws.

    Args:
        samples: all that the stage will draw.
    """
    if not cfg.needs_teacher:
        return lambda units: [[*unit] for unit in units]
    own = cfg.teacher
    assert own.path is not None, "settings ask for a teacher where there must be one"
    target = Path(own.path) if own.from_file else stage.folder.data / f"{stage.name}.topk{topk.SUFFIX}"
    if not target.exists():
        print(f"{stage.name}: asking the teacher what it finds likeliest, once")
        with stage.phase("teacher"):
            await _ask(cfg, own.path, stage, [sample for unit in samples() for sample in unit], target)
    table = topk.read(target)
    return lambda units: [[table.told(sample) for sample in unit] for unit in units]


async def _ask(cfg: Config, path: str, stage: Stage, samples: Sequence[Sample], target: Path) -> None:
    """Write what the teacher finds likeliest in the place of every target."""
    folder, k = stage.find_model(path), cfg.teacher.k
    teacher = await stage.spawn_frozen(LearnerRequest(None, cfg.learner, Transforms(), 0), folder)
    asked = list({topk.key(sample): sample for sample in samples}.values())
    found: list[TopK] = []
    for start in range(0, len(asked), _AT_ONCE):
        # Nothing is compared here, so that nothing has to stay together.
        part = [
            replace(sample, id=str(n), unit=None, label=None, anchor=None)
            for n, sample in enumerate(asked[start : start + _AT_ONCE])
        ]
        batches = pack(part, token_budget=cfg.learner.micro_batch_tokens, multiple=teacher.ranks)
        said: dict[int, TopK] = {}
        for batch, one in zip(batches, await teacher.topk(batches, k=k), strict=True):
            sizes = [int(n) for n in batch.target_counts_S.tolist()]
            split = zip(batch.ids, one.ids_TK.split(sizes), one.logprobs_TK.split(sizes), strict=True)
            said |= {int(name): TopK(ids, logprobs) for name, ids, logprobs in split}
        found += [said[n] for n in range(len(part))]
    await teacher.close()
    highest = max(int(one.ids_TK.max()) for one in found)
    if highest >= len(stage.tokenizer) or not all(bool(one.logprobs_TK.isfinite().all()) for one in found):
        problem = f"gives a token outside of its vocabulary (id {highest}) or a probability of 0 among the likeliest"
        raise DataError(path, problem, fix=f"lower {stage.name}.teacher.k")
    vocabulary = topk.vocabulary(stage.tokenizer)
    origin = {"teacher": path, "weights": _weights(folder), "vocabulary": vocabulary, "k": str(k)}
    topk.write(target, asked, found, origin=origin)


async def start(cfg: TeacherConfig, own: learner.Config, stage: Stage) -> None:
    """Make the teacher of an online stage."""
    assert cfg.path is not None, "settings ask for a teacher where there must be one"
    request = LearnerRequest(None, own, stage.sampling, 0)
    stage.teacher = await stage.spawn_frozen(request, stage.find_model(cfg.path))


def compared(
    groups: Sequence[Group], taught: Mapping[str, tuple[float, ...]], own: Mapping[str, tuple[float, ...]] | None
) -> list[Group]:
    """Groups with how much likelier the policy finds its tokens than the teacher does.

    Args:
        taught: log-probs under the teacher, by trajectory; where there are none, the trajectory is not trained on.
        own: under the policy; None takes the sampler's.
    """

    def gaps(name: str, sampled: tuple[float, ...]) -> tuple[float, ...]:
        if name not in taught:
            return (0.0,) * len(sampled)
        mine = sampled if own is None else own[name]
        return tuple((torch.tensor(mine) - torch.tensor(taught[name])).tolist())

    return [replace(g, teacher_gaps_GT=tuple(gaps(t.id, t.logprobs) for t in g.trajectories)) for g in groups]


def reverse_kl(groups: Sequence[Group], taught: Collection[str]) -> Mean:
    """Mean gap per token of the trajectories that are trained on: KL(policy || teacher), estimated."""
    rows = [row for g in groups for t, row in zip(g.trajectories, g.teacher_gaps_GT, strict=True) if t.id in taught]
    return mean_of([gap for row in rows for gap in row])


def path_of(cfg: TeacherConfig, *, needed: bool, stages: Collection[str]) -> str | None:
    """The folder or hub id of a teacher that a run opens; None where there is none, or it is a stage or a file."""
    named = cfg.path if needed and cfg.path not in stages else None
    return None if isinstance(cfg, LikeliestConfig) and cfg.from_file else named


def _difference(student: Mapping[str, int], teacher: Mapping[str, int]) -> str:
    """The first tokens that differ; empty where none do."""
    names = sorted(student.keys() | teacher.keys(), key=lambda name: student.get(name, teacher.get(name, 0)))
    different = sorted(name for name in names if student.get(name) != teacher.get(name))
    if not different:
        return ""
    first = different[0]
    told = f"{len(different)} of {len(names)} differ"
    return f"{told}, as '{first}', {student.get(first)} here and {teacher.get(first)} there"


def _weights(folder: Path) -> str:
    """A hash of all weights in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
