"""Makes the learners of a stage: from which weights each is opened. Called by the pipeline.

The policy, and a critic or a reward model, are opened from where the stage stands. Adapters are an exception:
the model that they are put beside is the one that the stage started from, also in the middle of it, and what the
checkpoint adds are the adapters. So a run that goes on computes with the same numbers as one that never stopped. The
next stage opens the merged model; if it trains adapters too, they are new ones, beside that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.core.protocols import LearnerHandle
from rlhf.core.seeding import derive_seed
from rlhf.loops.settings import MODEL, Experiment, Settings, StageSettings
from rlhf.loops.setup import opened
from rlhf.loops.stage import REFERENCE, LearnerRequest, Progress
from rlhf.models import adapters, load
from rlhf.runtime.roles import LearnerRole, Runtime


@dataclass(frozen=True, slots=True)
class StageFolders:
    """Where the models of a stage come from."""

    name: str
    """Of the stage."""
    now: Path
    """Weights of where it stands."""
    start: Path
    """Weights that it started from."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a learner is opened from."""

    folder: Path
    adapter: Path | None = None
    """Of the weights in the folder, to go on with."""


def learner(
    settings: Settings, runtime: Runtime, folders: StageFolders, *, progress: Progress
) -> Callable[[LearnerRequest], Awaitable[LearnerHandle]]:
    """Makes learners with the weights of where a stage stands."""

    def spawn(request: LearnerRequest) -> Awaitable[LearnerHandle]:
        source = Source(folders.now)
        if _adds(request):
            source = Source(folders.start, folders.now / adapters.FOLDER if progress.stage_step else None)
        versions = progress.version, progress.stage_version
        return runtime.learner(_role(settings, request, source, versions, names=(folders.name,)))

    return spawn


def reference(
    settings: Settings, runtime: Runtime, folders: StageFolders, *, progress: Progress
) -> Callable[[LearnerRequest], Awaitable[LearnerHandle]]:
    """Makes references: with the weights that a stage started from, or if they move, those of where it stands."""

    def spawn(request: LearnerRequest) -> Awaitable[LearnerHandle]:
        moved = request.moves and progress.stage_step
        source = Source(folders.now / REFERENCE if moved else folders.start)
        versions = progress.version, progress.stage_version
        return runtime.learner(_role(settings, request, source, versions, names=(folders.name, REFERENCE)))

    return spawn


def critic(
    settings: Settings, runtime: Runtime, folders: StageFolders, *, progress: Progress, models: Mapping[str, Path]
) -> Callable[[LearnerRequest, str | None, str], Awaitable[LearnerHandle]]:
    """Makes critics and reward models, of the weights that a stage started from or of others; in the middle of it of
    what lies beside them.

    Args:
        models: what stages have trained, by their names.
    """

    def spawn(request: LearnerRequest, path: str | None, second: str) -> Awaitable[LearnerHandle]:
        beside = folders.now / second if progress.stage_step else None
        if beside is not None and not _adds(request):
            source = Source(beside)
        else:
            start = folders.start
            if path is not None:
                start = models[path] if path in models else local(settings, path)
            source = Source(start, beside / adapters.FOLDER if beside is not None else None)
        versions = progress.critic_version, 0
        return runtime.learner(_role(settings, request, source, versions, names=(folders.name, second)))

    return spawn


def frozen(
    settings: Settings, runtime: Runtime, name: str
) -> Callable[[LearnerRequest, Path], Awaitable[LearnerHandle]]:
    """Makes learners that do not train, with the weights in a folder.

    Args:
        name: of the stage.
    """

    def spawn(request: LearnerRequest, folder: Path) -> Awaitable[LearnerHandle]:
        assert request.loss is None, "a frozen model has no loss"
        return runtime.learner(_role(settings, request, Source(folder), (0, 0), names=(name,)))

    return spawn


def local(settings: Settings, path: str) -> Path:
    """The folder of a model by path or hub id.

    Raises:
        DataError: there is none.
    """
    return load.local_folder(path, trust_remote_code=settings.model.trust_remote_code)


def ended(experiment: Experiment, progress: Progress, checkpoints: Path) -> dict[str, Path]:
    """Weights of the stages that have ended, by the name of the stage."""
    ends = zip(experiment.stages, progress.stage_ends, strict=False)
    return {stage.name: checkpoints / f"step_{end}" for stage, end in ends}


def began(experiment: Experiment, stage: StageSettings, progress: Progress, checkpoints: Path, model: Path) -> Path:
    """Weights that the current stage starts from: those that its `start` names, else those of the stage before.

    Args:
        model: that the run starts from.
    """
    if stage.config.start:
        return model if stage.config.start == MODEL else ended(experiment, progress, checkpoints)[stage.config.start]
    begun = progress.step - progress.stage_step
    return checkpoints / f"step_{begun}" if begun else model


def _adds(request: LearnerRequest) -> bool:
    return request.loss is not None and adapters.adds(request.cfg.trainable)


def _role(
    settings: Settings, request: LearnerRequest, source: Source, versions: tuple[int, int], *, names: Sequence[str]
) -> LearnerRole:
    """What to open.

    Args:
        versions: updates behind the weights, and behind those that the stage began with.
        names: what random choices about what trains are for.
    """
    version, first_version = versions
    return LearnerRole(
        model=opened(settings, source.folder),
        loss=request.loss,
        cfg=request.cfg,
        transforms=request.transforms,
        total_updates=request.total_updates,
        version=version,
        first_version=first_version,
        seed=derive_seed(settings.seed, "trainable", *names),
        adapter=source.adapter,
        moves=request.moves,
    )
