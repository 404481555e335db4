"""`rlhf profile`: which method reaches its target first, over the tasks of sweeps or runs.

Methods are the arms of sweeps, or what runs are called (`METHOD=RUN`). A task is a held-out task: of a sweep, called
like the sweep where it is the only one there, else `SWEEP/TASK`; of runs by themselves, called by its own name. The
seeds of a method count by the median of their costs (`rlhf.report.profiles` has the formulas).

    target = median over the baseline's seeds of the best value that each reached        unless one is given

as AlgoPerf sets its targets (Dahl et al. 2023, arXiv 2306.07179; "Defining target performance" in its documentation);
of an even number of seeds the lower of the two in the middle, so that the baseline always arrives.
"""

from __future__ import annotations

import glob
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.run_folder import RunFolder, write_whole
from rlhf.report import comparison, profile_chart
from rlhf.report.profiles import R_MAX, Profile, profiles, reached
from rlhf.report.units import amount, duration
from rlhf.sweeps.spending import Curve, curves

FORMAT = 1
METRIC = "val-core/*/sampled_accuracy/mean"
RESULTS = "results.json"
"""Marks the folder of a sweep that has been collected."""
ARMS = "arms"
"""Marks the folder of any sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What counts as reached, and what it costs."""

    metric: str = METRIC
    """Key of `metrics.jsonl`; `*` stands for the held-out task."""
    lower: bool = False
    """Smaller is better."""
    cost: str = "steps"
    """steps, tokens or seconds."""
    after: str = ""
    """Stage at whose end costs begin to count; empty: with the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be reached on a task."""

    value: float
    baseline: str
    """Method whose seeds set it; empty where it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How one method did."""

    profile: Profile
    seeds: Mapping[str, Mapping[int, float]]
    """Costs by task and seed; infinite where the target was missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The whole result, the best method first."""

    asked: Asked
    targets: Mapping[str, Target]
    """By task."""
    methods: Mapping[str, Method]
    left_out: Sequence[str]
    """Runs that have not finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A finished run."""

    source: str
    """Name of its sweep; empty for a run by itself."""
    method: str
    baseline: str
    """Method that sets the targets of its tasks."""
    seed: int
    folder: RunFolder


Curves = Mapping[str, Mapping[str, Mapping[int, Curve]]]
"""By task, method and seed."""


def run(
    sources: Sequence[str],
    asked: Asked,
    *,
    targets: Sequence[str],
    methods: Sequence[str],
    out: Path | None,
    picture: Path | None,
) -> None:
    """Print the profiles, and write what is asked for.

    Args:
        sources: folders of sweeps and runs, the latter perhaps as `METHOD=RUN`, where RUN may be a pattern.
        asked: what counts.
        targets: `VALUE` for all tasks, `TASK=VALUE` for one.
        methods: those to compare; none: all that there are.
        out: file for the numbers.
        picture: file for the drawing.

    Raises:
        UserError: something is missing, unknown or there twice; says what.
    """
    members, left_out = _members(sources)
    by_task, baselines = gathered(members, asked)
    found = compared(by_task, baselines, asked, targets=targets, methods=methods, left_out=left_out)
    show(found)
    if out is not None:
        write(found, out)
    if picture is not None:
        drawn = {name: method.profile for name, method in found.methods.items()}
        print(f"picture: {profile_chart.write(drawn, picture, cost=asked.cost)}")


def gathered(members: Sequence[Member], asked: Asked) -> tuple[Curves, dict[str, str]]:
    """Curves, larger values being better, and the baseline of each task.

    Raises:
        DataError: a run lacks the metric, or is one of two with the same method, seed and task.
    """
    found = [(member, curves(member.folder, asked.metric, cost=asked.cost, after=asked.after)) for member in members]
    tasks: dict[str, dict[str, None]] = {}
    for member, own in found:
        if not own:
            fix = "give --metric a key of metrics.jsonl, with * for the held-out task"
            raise DataError(str(member.folder.path), f"never recorded '{asked.metric}'", fix=fix)
        tasks.setdefault(member.source, {}).update(dict.fromkeys(own))
    out: dict[str, dict[str, dict[int, Curve]]] = {}
    baselines: dict[str, str] = {}
    for member, own in found:
        for task, curve in own.items():
            label = _label(member.source, task or asked.metric, alone=len(tasks[member.source]) == 1)
            seeds = out.setdefault(label, {}).setdefault(member.method, {})
            if member.seed in seeds:
                problem = f"is there twice on {label} with seed {member.seed}"
                fix = "leave one out, or give tasks that differ names that do"
                raise DataError(member.method, problem, fix=fix)
            baselines.setdefault(label, member.baseline)
            sign = -1 if asked.lower else 1
            seeds[member.seed] = Curve(costs=curve.costs, values=[sign * value for value in curve.values])
    return out, baselines


def compared(
    by_task: Curves,
    baselines: Mapping[str, str],
    asked: Asked,
    *,
    targets: Sequence[str] = (),
    methods: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> Found:
    """Profiles of all methods.

    Args:
        by_task: larger values are better.
        baselines: method that sets a task's target, by task.
        asked: what they were gathered by.
        targets: as given; the others come from the baselines.
        methods: those to compare; none: all.
        left_out: runs that are not among them.

    Raises:
        ConfigError: a target or method is unknown.
        DataError: a method lacks a task; says which.
    """
    known = list(dict.fromkeys(method for of_task in by_task.values() for method in of_task))
    for method in methods:
        if method not in known:
            raise ConfigError("--method", f"there is no '{method}'", fix=did_you_mean(method, known))
    chosen = list(methods) or known
    for method in chosen:
        lacking = [task for task, of_task in by_task.items() if method not in of_task]
        if lacking:
            fix = "run it there, leave the task out, or name the methods that have all tasks: --method NAME"
            raise DataError(method, f"has no finished run on {', '.join(lacking)}", fix=fix)
    wanted = _targets(by_task, baselines, targets, sign=-1 if asked.lower else 1)
    costs = {
        method: {
            task: {
                seed: reached(curve.costs, curve.values, target=-to.value if asked.lower else to.value)
                for seed, curve in sorted(by_task[task][method].items())
            }
            for task, to in wanted.items()
        }
        for method in chosen
    }
    found = profiles({method: {task: list(c.values()) for task, c in own.items()} for method, own in costs.items()})
    best = sorted(chosen, key=lambda method: -found[method].score)
    return Found(
        asked=asked,
        targets=wanted,
        methods={method: Method(profile=found[method], seeds=costs[method]) for method in best},
        left_out=left_out,
    )


def show(found: Found) -> None:
    """Print the table."""
    title = f"{found.asked.cost} until {found.asked.metric} reaches its target"
    title += f", after {found.asked.after}" if found.asked.after else ""
    sign = "≤" if found.asked.lower else "≥"
    heads = [f"{task} {sign} {target.value:.4g}" for task, target in found.targets.items()]
    table = Table("method", "score", "first", "arrives", *heads, title=title, title_justify="left")
    for name, method in found.methods.items():
        of = method.profile
        cells = [_cell(method, task, found.asked.cost) for task in found.targets]
        table.add_row(name, f"{of.score:.3f}", f"{of.rho(1):.0%}", f"{of.arrived:.0%}", *cells)
    console = Console()
    console.print(table)
    by = dict.fromkeys(target.baseline for target in found.targets.values() if target.baseline)
    if by:
        console.print(f"targets: the best that {', '.join(by)} reached, median of the seeds", highlight=False)
    if found.left_out:
        console.print(f"not finished and left out: {', '.join(found.left_out)}", highlight=False)


def write(found: Found, path: Path) -> None:
    """Store as JSON; what is infinite is null."""
    methods = {
        name: {
            "score": method.profile.score,
            "first": method.profile.rho(1),
            "arrived": method.profile.arrived,
            "tasks": {
                task: {
                    "cost": _finite(statistics.median(seeds.values())),
                    "ratio": _finite(method.profile.ratios[task]),
                    "seeds": {str(seed): _finite(cost) for seed, cost in seeds.items()},
                }
                for task, seeds in method.seeds.items()
            },
        }
        for name, method in found.methods.items()
    }
    content = {
        "format": FORMAT,
        **asdict(found.asked),
        "r_max": R_MAX,
        "targets": {task: asdict(target) for task, target in found.targets.items()},
        "methods": methods,
        "left_out": list(found.left_out),
    }
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _members(sources: Sequence[str]) -> tuple[list[Member], list[str]]:
    """Finished runs of all sources, and the paths of those that are not."""
    found: list[Member] = []
    first = ""
    for source in sources:
        path = Path(source)
        if (path / RESULTS).exists():
            found += _of_sweep(path)
            continue
        if (path / ARMS).is_dir():
            raise DataError(source, f"is a sweep without a {RESULTS} yet", fix="run `rlhf sweep FILE --collect`")
        name, _, pattern = source.partition("=") if not path.exists() else (path.name, "", source)
        folders = sorted(glob.glob(pattern)) if not path.exists() else [pattern]
        if not folders:
            fix = "give the folder of a sweep, the folder of a run, or METHOD=RUN"
            raise DataError(source, "is neither a sweep nor a run", fix=fix)
        first = first or name
        found += [_alone(RunFolder.existing(Path(folder)), name, first) for folder in folders]
    done = [member for member in found if member.folder.summary.exists()]
    if not done:
        raise DataError(", ".join(sources), "no run has finished", fix="run the command that started them again")
    return done, [str(member.folder.path) for member in found if member not in done]


def _of_sweep(path: Path) -> Iterator[Member]:
    found = comparison.read(path / RESULTS)
    for arm in found.arms:
        for member in arm.members:
            folder = RunFolder(path / member.folder)
            yield Member(source=found.name, method=arm.name, baseline=found.baseline, seed=member.seed, folder=folder)


def _alone(folder: RunFolder, method: str, baseline: str) -> Member:
    seed = int(yaml.safe_load(folder.config.read_text(encoding="utf-8"))["seed"])
    return Member(source="", method=method, baseline=baseline, seed=seed, folder=folder)


def _label(source: str, task: str, *, alone: bool) -> str:
    if not source:
        return task
    return source if alone else f"{source}/{task}"


def _targets(by_task: Curves, baselines: Mapping[str, str], given: Sequence[str], *, sign: int) -> dict[str, Target]:
    """What is to be reached, in the metric's own sign."""
    values: dict[str, float] = {}
    for text in given:
        task, _, number = text.rpartition("=")
        if task and task not in by_task:
            raise ConfigError("--target", f"there is no task '{task}'", fix=did_you_mean(task, by_task))
        try:
            values[task] = float(number)
        except ValueError as error:
            raise ConfigError("--target", f"'{text}' has no number", fix="write TASK=0.8, or 0.8 for all") from error
    out: dict[str, Target] = {}
    for task, of_task in by_task.items():
        value = values.get(task, values.get(""))
        if value is not None:
            out[task] = Target(value=value, baseline="")
            continue
        seeds = of_task.get(baselines[task])
        if seeds is None:
            fix = f"say what is to be reached: --target {task}=VALUE"
            raise DataError(baselines[task], f"has no finished run on {task} that could set the target", fix=fix)
        best = statistics.median_low([max(curve.values) for curve in seeds.values()])
        out[task] = Target(value=sign * best, baseline=baselines[task])
    return out


def _cell(method: Method, task: str, cost: str) -> str:
    """`36 (×1.5)`; how many seeds arrived where not all did."""
    seeds, ratio = list(method.seeds[task].values()), method.profile.ratios[task]
    arrived = sum(math.isfinite(found) for found in seeds)
    some = f", {arrived} of {len(seeds)} seeds" if arrived < len(seeds) else ""
    if math.isinf(ratio):
        return f"missed{some}"
    paid = statistics.median(seeds)
    return f"{duration(paid) if cost == 'seconds' else amount(paid)} (×{ratio:.2f}){some}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
