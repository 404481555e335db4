"""`rlhf evaluate` and `rlhf report`: look at a model or a run without changing it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rlhf.core.run_folder import RunFolder, write_whole
from rlhf.loops import pipeline, settings, setup, summary
from rlhf.loops.evaluate import Result, measure
from rlhf.loops.settings import Experiment, Settings
from rlhf.report.stats import Interval
from rlhf.runtime import host


def evaluate(target: Path, overrides: Sequence[str], *, out: Path | None) -> list[Result]:
    """Measure held-out accuracy, of every task.

    Args:
        target: a config file (its model is measured), or a run folder (its newest checkpoint is).
        overrides: `key=value`; `task.test=…` measures on another set.
        out: where to write the numbers as JSON.
    """
    with opened(target, overrides) as found:
        experiment, shared, now = found.experiment, found.shared, found.now
        setup.check_rewards(experiment.settings, shared)
        models = setup.reward_models(experiment, now.progress, found.folder.checkpoints)
        results = asyncio.run(_measured(experiment.settings, shared, now.weights, models))
    for result in results:
        show(result, of=f"{target}, step {now.progress.step}" if target.is_dir() else now.weights.name)
    if out is not None:
        numbers = {name: value for result in results for name, value in result.metrics().items()}
        write_whole(out, json.dumps({"step": now.progress.step, **numbers}, indent=1))
    return results


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a target is made of, as long as it is looked at."""

    experiment: Experiment
    folder: RunFolder
    shared: setup.Parts
    now: pipeline.Standing


@contextmanager
def opened(target: Path, overrides: Sequence[str]) -> Iterator[Opened]:
    """A config's model, or the newest weights of a run.

    Args:
        target: a config file, or a run folder.
        overrides: `key=value`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder.existing(target) if target.is_dir() else RunFolder(Path(scratch))
        experiment = settings.read(folder.config if target.is_dir() else target, overrides)
        host.prepare(experiment.settings.threads)
        home = folder.model if folder.model.exists() else Path(scratch) / "model"
        shared = setup.parts(experiment.settings, home)
        with shared.pool:
            now = pipeline.standing(folder, shared.model_folder)
            yield Opened(experiment=experiment, folder=folder, shared=shared, now=now)


async def _measured(settings: Settings, shared: setup.Parts, weights: Path, models: Mapping[str, Path]) -> list[Result]:
    async with setup.running(settings, shared) as runtime:
        engine = await runtime.engine(setup.engine(settings, weights))
        grader = await runtime.grader(setup.grader(settings, models))
        return await measure(setup.evaluators(settings, shared), engine, grader)


def show(result: Result, *, of: str) -> None:
    """Print the evaluation of a task as a table."""
    table = Table("measure", "mean", "95 % interval", "prompts", title=f"{result.task}: {of}", title_justify="left")
    rows: dict[str, Interval | None] = {"sampled accuracy": result.sampled, "greedy accuracy": result.greedy}
    rows |= {f"pass@{k}": interval for k, interval in result.pass_at.items()}
    rows |= result.repeated
    beside = {**result.lengths, **result.parts, **result.honesty}
    rows |= {name.replace("_", " "): interval for name, interval in beside.items()}
    for name, interval in rows.items():
        if interval is not None:
            entry = asdict(interval)
            bounds = f"{entry['low']:.3f} – {entry['high']:.3f}"
            table.add_row(name, f"{entry['mean']:.3f}", bounds, str(entry["n"]))
    console = Console()
    console.print(table)
    console.print(
        f"{sum(len(t.tokens) for g in result.groups for t in g.trajectories):,} tokens sampled,"
        f" ungradable {result.ungradable}",
        highlight=False,
    )
    answers = sum(len(group.trajectories) for group in result.groups)
    spent = {name.replace("_", " "): number / answers for name, number in asdict(result.cost).items() if number}
    listed = ", ".join(f"{number:.1f} {name}" for name, number in spent.items())
    console.print(f"spent per sampled answer: {listed}", highlight=False)


def report(run: Path) -> Path:
    """Write `report.html` of a run, finished or not.

    Raises:
        RunFolderError: the folder is not a run.
    """
    return summary.report(RunFolder.existing(run))
