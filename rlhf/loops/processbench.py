"""`rlhf evaluate TARGET --process FILE …`: how well a process reward model finds the first wrong step of solutions.

Each file is a subset, named after itself, in the record format of ProcessBench (Zheng et al. 2024, arXiv 2412.06559) or
another that `rlhf.data.examples.steps` reads. The threshold is chosen on the subset `gsm8k`, as the benchmark does, or
on the first one where there is none; the numbers of that subset are then those of the best threshold for it. The model
is that of the reward `process` of a config, or the one that a run has trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rewards import process
from rewards.process import Unscored
from rlhf.core.errors import ConfigError
from rlhf.core.run_folder import RunFolder, write_whole
from rlhf.data import sources
from rlhf.data.examples import steps
from rlhf.data.examples.steps import Solution
from rlhf.loops import pipeline, settings, setup
from rlhf.loops.settings import Experiment
from rlhf.loops.stage import PRM
from rlhf.report import first_error
from rlhf.report.first_error import FirstError, Scored
from rlhf.report.stats import Interval

CHOSEN_ON = "gsm8k"
"""The benchmark's subset on which a threshold is chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Numbers per subset."""

    subsets: Mapping[str, FirstError]
    unscored: Mapping[str, int]
    """Solutions without scores, for example because they do not fit the model's context; left out of the shares."""
    intervals: Mapping[str, Interval]
    """By `<subset>/f1`, `/erroneous`, `/correct`, and `f1` for the mean."""

    def values(self) -> dict[str, float]:
        """Flat names: `processbench/gsm8k/f1` with `…/low` and `…/high`, and `processbench/f1` for the mean."""
        out: dict[str, float] = {}
        for name, found in self.intervals.items():
            out |= {f"processbench/{name}": found.mean}
            out |= {f"processbench/{name}/low": found.low, f"processbench/{name}/high": found.high}
        out |= {f"processbench/{name}/unscored": float(count) for name, count in self.unscored.items()}
        return out | {"processbench/threshold": next(iter(self.subsets.values())).threshold}


def evaluate(target: Path, overrides: Sequence[str], files: Sequence[Path], *, out: Path | None) -> Measured:
    """Measure, and print a table.

    Args:
        target: a config file with the reward `process`, or the folder of a run that has trained a model.
        overrides: `key=value` of the config.
        files: one per subset.
        out: where to write the numbers as JSON.

    Raises:
        UserError: there is no model, or a file or row cannot be read.
    """
    folder = RunFolder.existing(target) if target.is_dir() else None
    experiment = settings.read(folder.config if folder is not None else target, overrides)
    found = measure(_reward(experiment, folder), files)
    show(found, of=str(target))
    if out is not None:
        write_whole(out, json.dumps(found.values(), indent=1))
    return found


def measure(cfg: process.Config, files: Sequence[Path]) -> Measured:
    """Score every subset, choose the threshold, and compare."""
    scored: dict[str, list[Scored]] = {}
    unscored: dict[str, int] = {}
    for file in files:
        if file.stem in scored:
            raise ConfigError("--process", f"two files are called '{file.stem}'", fix="rename one of them")
        solutions = _solutions(file)
        scores = process.step_scores([process.answer(s.prompt, s.steps) for s in solutions], cfg)
        pairs = list(zip(solutions, scores, strict=True))
        scored[file.stem] = [
            Scored(scores=s, first_error=a.first_error) for a, s in pairs if not isinstance(s, Unscored)
        ]
        unscored[file.stem] = sum(isinstance(s, Unscored) for _, s in pairs)
    threshold = first_error.best_threshold(scored.get(CHOSEN_ON, next(iter(scored.values()))))
    subsets = {name: first_error.measure(found, threshold=threshold) for name, found in scored.items()}
    intervals = first_error.intervals(scored, threshold=threshold, seed=0)
    return Measured(subsets=subsets, unscored=unscored, intervals=intervals)


def show(found: Measured, *, of: str) -> None:
    """Print the numbers as a table."""
    threshold = next(iter(found.subsets.values())).threshold
    title = f"first wrong step: {of}, threshold {threshold:.3f}"
    table = Table("subset", "F1", "erroneous", "correct", "solutions", "unscored", title=title, title_justify="left")
    for name, subset in found.subsets.items():
        shares = [_percent(found.intervals.get(f"{name}/{key}")) for key in ("f1", "erroneous", "correct")]
        count = f"{subset.num_erroneous} + {subset.num_correct}"
        table.add_row(name, *shares, count, str(found.unscored[name]))
    if len(found.subsets) > 1:
        table.add_section()
        table.add_row("mean", _percent(found.intervals.get("f1")))
    Console().print(table)


def _solutions(file: Path) -> list[Solution]:
    rows = enumerate(sources.rows(str(file), split="train", where="--process"), start=1)
    return [steps.read(row, steps.Config(), where=f"{file}, row {n}", name=f"{file.stem}-{n}") for n, row in rows]


def _reward(experiment: Experiment, folder: RunFolder | None) -> process.Config:
    """The reward whose model is measured."""
    configs = [c.config for c in experiment.settings.rewards.values() if isinstance(c.config, process.Config)]
    models: dict[str, Path] = {}
    if folder is not None:
        now = pipeline.standing(folder, folder.model)
        trained = setup.reward_models(experiment, now.progress, folder.checkpoints)
        models = {stage: model for stage, model in trained.items() if model.name == PRM}
    for cfg in configs:
        if not cfg.stage:
            return cfg
        if cfg.stage in models:
            return cfg.asking(models[cfg.stage])
    if models:
        return process.Config(model=str(list(models.values())[-1]))
    fix = (
        "add the reward `process` with a `model`, or give the folder of a run whose stage with loss.name=prm has ended"
    )
    raise ConfigError("rewards", "there is no process reward model to measure", fix=fix)


def _percent(found: Interval | None) -> str:
    return "–" if found is None else f"{found.mean:.1%} [{found.low:.1%}, {found.high:.1%}]"
