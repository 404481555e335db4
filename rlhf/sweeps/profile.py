"""Which method reaches its target first, over the tasks of sweeps or runs: what `rlhf profile` prints.

Methods are the arms of sweeps, or what runs are called (`METHOD=RUN`). A task is a held-out task: of a sweep, called
like the sweep, or as `TASK=SWEEP` says, where it is the only one there, else `SWEEP/TASK`; of runs by themselves, or
of a single sweep, by its own name. The seeds of a method count by the median of their costs (`rlhf.report.profiles`).

    target = median over the baseline's seeds of the best value that each reached        unless one is given

as AlgoPerf sets its targets (Dahl et al. 2023, arXiv 2306.07179; "Defining target performance" in its documentation);
of an even number of seeds the lower of the two in the middle, so that the baseline always arrives.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.run_folder import RunFolder
from rlhf.report.profiles import Profile, profiles, reached
from rlhf.sweeps.spending import Curve, curves

METRIC = "val-core/*/sampled_accuracy/mean"


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
            many = {"of_many": len(tasks[member.source]) > 1, "among_many": len(tasks) > 1}
            label = _label(member.source, task or asked.metric, **many)
            seeds = out.setdefault(label, {}).setdefault(member.method, {})
            if member.seed in seeds:
                problem = f"is there twice on {label} with seed {member.seed}"
                fix = "leave one out, or name sweeps that differ: TASK=SWEEP"
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


def _label(source: str, task: str, *, of_many: bool, among_many: bool) -> str:
    """What a task is called: one of many of its sweep, or not; the sweep being one of many, or not."""
    if not source or (of_many and not among_many):
        return task
    return f"{source}/{task}" if of_many else source


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
