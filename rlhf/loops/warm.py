"""Stages that several runs begin with run once: a cache of stage outputs, addressed by what they are made from.

An entry is an ordinary finished run folder that holds the stages before the last one, so that it is made, locked,
continued after a kill and reported like any run. Its name holds a hash of everything that can change its numbers: the
resolved config without the run's name, the content of the data, the code (this package's, and the file of every
component or reward that is not part of it; not what those import), versions, threads and device. A run that starts from
an entry has the logs and checkpoints that it would have had by itself.

A supervised stage asks its engine and its rewards nothing until it is evaluated. Where it is alone in an entry and
evaluated at its end only, that entry in turn starts from another one: a run, with an engine and rewards that have
nothing to say, that ends in front of the last step. So runs that differ in engine or rewards train once too.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import rewards
import rlhf
import rollout
from rlhf.core.component import Component
from rlhf.core.run_folder import RunFolder
from rlhf.learner import checkpoint
from rlhf.loops import offline
from rlhf.loops.budget import BudgetConfig
from rlhf.loops.settings import Experiment, plain
from rlhf.runtime import local

SHIPPED = (rlhf, rewards, rollout)
ENVIRONMENT = ("python", "packages", "cpu_threads", "gpu", "data")
"""What of a run's environment can change its numbers."""


def first_part(experiment: Experiment, environment: Mapping[str, Any], cache: Path) -> Experiment | None:
    """What other runs may begin with too, as a run of its own, in the cache; None where there is no such part.

    Args:
        experiment: that is to start.
        environment: of this process, as `environment.json` has it.
        cache: folder of all entries.
    """
    if len(experiment.stages) > 1:
        part, what = _earlier_stages(experiment), ""
    elif _only_trains(experiment):
        part, what = _training(experiment), "-training"
    else:
        return None
    name = f"{part.settings.stages[-1]}{what}-{key(part, environment)}"
    run = replace(part.settings.run, folder=str(cache), name=name)
    return replace(part, settings=replace(part.settings, run=run))


def finished(part: Experiment, folder: RunFolder) -> bool:
    """Whether an entry holds all that others take from it."""
    if part.stop_before is None:
        return folder.summary.exists()
    return part.stop_before - 1 in checkpoint.steps(folder.checkpoints)


def _earlier_stages(experiment: Experiment) -> Experiment:
    """All but the last one."""
    stages = experiment.stages[:-1]
    settings = replace(experiment.settings, stages=[stage.name for stage in stages], budget=BudgetConfig())
    part = replace(experiment, settings=settings, stages=stages)
    assert not part.evaluates_start, "what several stages begin with is measured at their ends only"
    return part


def _only_trains(experiment: Experiment) -> bool:
    """Whether the run is one supervised stage that measures nothing before its last step, and no reward has said what
    it learns. On Ray engines have devices of their own shape, which another engine would not fit."""
    if experiment.stop_before is not None or experiment.evaluates_start or experiment.settings.care.noise.on:
        return False
    [stage] = experiment.stages
    trains = isinstance(stage.config, offline.Config) and stage.config.steps > 1 and not stage.config.evaluate_every
    return trains and isinstance(experiment.settings.runtime.config, local.Config)


def _training(experiment: Experiment) -> Experiment:
    """The same stage up to its last step, equal for all engines and rewards."""
    return replace(experiment, settings=plain(experiment.settings), stop_before=experiment.stages[0].config.steps)


def key(experiment: Experiment, environment: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits, equal for runs that compute the same."""
    tree = experiment.to_tree()
    del tree["run"]
    parts = {
        "config": tree,
        "environment": {name: environment[name] for name in ENVIRONMENT},
        "code": {name: _digest(path) for name, path in _code(experiment)},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def adopt(source: RunFolder, target: RunFolder) -> None:
    """Give a run that has not begun what a finished part of it left behind. A kill in between is made good by the next
    call: the newest checkpoint, by which a run knows that it has begun, comes last and whole.

    Files that nobody changes any more are shared with the entry where the file system can.
    """
    kept = (*source.logs(), *sorted(source.data.glob("*.safetensors")))
    for log in kept:
        place = target.path / log.relative_to(source.path)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(log, place)
    if source.model.exists():
        _link_whole(source.model, target.model)
    steps = checkpoint.steps(source.checkpoints)
    ends = checkpoint.read(source.checkpoints, steps[-1]).state["progress"]["stage_ends"]
    target.checkpoints.mkdir(exist_ok=True)
    for step in (step for step in steps if step in ends or step == steps[-1]):
        _link_whole(source.checkpoints / f"step_{step}", target.checkpoints / f"step_{step}")


def _link_whole(source: Path, target: Path) -> None:
    """The folder under its name, with all of its files, or not at all."""
    if target.exists():
        return
    hidden = target.with_name(f".adopt_{target.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    shutil.copytree(source, hidden, copy_function=_link)
    hidden.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        shutil.copy2(source, target)


def _code(experiment: Experiment) -> Iterator[tuple[str, Path]]:
    """Every file of this package, and the files of the user's own components and reward functions."""
    homes = [Path(str(package.__file__)).parent for package in SHIPPED]
    for home in homes:
        for path in sorted(home.rglob("*.py")):
            yield str(path.relative_to(home.parent)), path
    for config in (experiment.settings, *(stage.config for stage in experiment.stages)):
        for component in _components(vars(config)):
            for path in (Path(str(component.module.__file__)), *_function_file(component)):
                if not any(path.is_relative_to(home) for home in homes):
                    yield component.name, path


def _components(fields: Mapping[str, Any]) -> Iterator[Component]:
    """Every component that a config holds, and those that they and its blocks hold."""
    for value in fields.values():
        held = value.values() if isinstance(value, Mapping) else (value,)
        for entry in held:
            if isinstance(entry, Component):
                yield entry
                yield from _components(vars(entry.config))
            elif is_dataclass(entry) and not isinstance(entry, type):
                yield from _components(vars(entry))


def _function_file(component: Component) -> Iterator[Path]:
    """The file of the function that a `user_function` calls; one that is not found is an error elsewhere."""
    if component.name != "user_function":
        return
    module, _, _ = component.config.path.replace(":", ".").rpartition(".")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return
    if found is not None and found.origin is not None:
        yield Path(found.origin)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
