"""The runs of a sweep: which there are, where they lie, and what has become of them.

A run is known by its arm, its seed and a hash of its resolved config, which name its folder: one that is complete is
never run again, and one whose config has changed since is another run.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml

from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.run_folder import RunFolder, write_whole
from rlhf.loops import budget, settings
from rlhf.loops.settings import Experiment
from rlhf.sweeps.spec import Spec, nested


class Status(StrEnum):
    """What has become of a run."""

    DONE = "done"
    FAILED = "failed"
    OPEN = "not run yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    name: str
    """Of its folder."""
    config: Path
    """File to run."""
    overrides: tuple[str, ...]
    folder: RunFolder
    log: Path
    """What the process said."""

    @property
    def status(self) -> Status:
        if self.folder.summary.exists():
            return Status.DONE
        return Status.FAILED if self.failed.exists() else Status.OPEN

    @property
    def given_up(self) -> str:
        """Why it was given up; empty where it was not, or has not ended."""
        return budget.given_up(self.folder) if self.folder.summary.exists() else ""

    @property
    def failed(self) -> Path:
        """Marks a run whose process ended without a result; holds the last words."""
        return self.log.with_suffix(".failed")

    @property
    def command(self) -> list[str]:
        """Arguments of `rlhf`."""
        return ["train", str(self.config), *self.overrides]

    def experiment(self) -> Experiment:
        """The checked config of the run.

        Raises:
            ConfigError: the arm does not fit the base config.
        """
        return settings.read(self.config, self.overrides)


def lay_out(spec: Spec) -> list[Run]:
    """Write the configs of all arms and name every run; arm by arm, so that what arms share is there when needed.

    Raises:
        ConfigError: an arm does not fit the base config; says which.
    """
    places = {name: spec.folder / name for name in ("arms", "runs", "logs")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    common = places["arms"] / ".common.yaml"
    _write(common, {"base": os.path.relpath(spec.base, places["arms"])} | nested(spec.cfg.set, "set"))
    for arm, tree in spec.arms.items():
        _write(places["arms"] / f"{arm}.yaml", {"base": common.name} | tree)
    against = {seed: _run(spec, spec.baseline, seed, places) for seed in spec.cfg.seeds} if spec.cfg.give_up else {}
    return [
        _run(spec, arm, seed, places, against=None if arm == spec.baseline else against.get(seed))
        for arm in spec.arms
        for seed in spec.cfg.seeds
    ]


def _run(spec: Spec, arm: str, seed: int, places: dict[str, Path], *, against: Run | None = None) -> Run:
    """A run, which is given up where it will end below another one."""
    path = places["arms"] / f"{arm}.yaml"
    fixed = (f"seed={seed}", f"threads={spec.cfg.threads}", f"run.folder={places['runs']}")
    fixed += (f"budget.against={against.folder.path}",) if against is not None else ()
    try:
        experiment = settings.read(path, (*fixed, "run.name=unnamed"))
    except ConfigError as error:
        raise ConfigError(f"arms.{arm}: {error.where}", error.problem, fix=error.fix) from error
    tree = experiment.to_tree()
    del tree["run"]
    digest = hashlib.sha256(yaml.safe_dump(tree, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{arm}-seed{seed}-{digest}"
    return Run(
        arm=arm,
        seed=seed,
        name=name,
        config=path,
        overrides=(*fixed, f"run.name={name}"),
        folder=RunFolder(places["runs"] / name),
        log=places["logs"] / f"{name}.log",
    )


def _write(path: Path, tree: config.Tree) -> None:
    text = config.to_yaml(tree)
    # Tasks of an array job come here at the same time; what is there already is not touched.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_whole(path, text)
