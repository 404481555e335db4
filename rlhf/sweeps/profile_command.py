"""`rlhf profile`: reads sweeps and runs, prints what `rlhf.sweeps.profile` finds, and writes its JSON and picture."""

from __future__ import annotations

import glob
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table as Printed

from rlhf.core.errors import DataError
from rlhf.core.run_folder import RunFolder, read_lines, write_whole
from rlhf.report import comparison, profile_chart
from rlhf.report.parts import Cell, Table
from rlhf.report.profiles import R_MAX
from rlhf.report.units import amount, duration
from rlhf.sweeps.profile import METRIC, Asked, Found, Member, Method, compared, gathered
from rlhf.sweeps.spending import curves

FORMAT = 1
RESULTS = "results.json"
"""Marks the folder of a sweep that has been collected."""
ARMS = "arms"
"""Marks the folder of any sweep."""
FEWEST = 3
"""Evaluations of the last stage that a sweep's page needs to say when a target was reached."""


def run(
    sources: Sequence[str],
    *,
    target: Sequence[str] | None = None,
    metric: str | None = None,
    lower: bool = False,
    cost: str = "steps",
    after: str = "",
    method: Sequence[str] | None = None,
    out: Path | None = None,
    picture: Path | None = None,
) -> None:
    """Print the profiles, and write what is asked for.

    Args:
        sources: folders of sweeps, or `TASK=SWEEP`, and of runs, or `METHOD=RUN`, where RUN may be a pattern.
        target: `VALUE` for all tasks, `TASK=VALUE` for one; None: what the baselines reached.
        metric: key of `metrics.jsonl`, `*` stands for the held-out task; None: sampled accuracy.
        lower: smaller is better.
        cost: steps, tokens or seconds.
        after: stage at whose end costs begin to count; empty: with the run.
        method: those to compare; None: all that there are.
        out: file for the numbers.
        picture: file for the drawing.

    Raises:
        UserError: something is missing, unknown or there twice; says what.
    """
    members, left_out = _members(sources)
    asked = Asked(metric=metric or METRIC, lower=lower, cost=cost, after=after)
    by_task, baselines = gathered(members, asked)
    found = compared(by_task, baselines, asked, targets=target or (), methods=method or (), left_out=left_out)
    _all_to_be_paid(found)
    show(found)
    if out is not None:
        write(found, out)
    if picture is not None:
        drawn = {name: each.profile for name, each in found.methods.items()}
        print(f"picture: {profile_chart.write(drawn, picture, cost=cost)}")


def of_sweep(folder: Path) -> Table | None:
    """When each arm reached the best of the baseline, in steps of the last stage, for the sweep's page.

    None where an arm has no finished run, stages differ, or accuracy was not measured often enough to say.
    """
    found = list(_of_sweep(folder))
    done = [member for member in found if member.folder.summary.exists()]
    stages = {tuple(dict.fromkeys(row["stage"] for row in read_lines(member.folder.metrics))) for member in done}
    if {member.method for member in found} != {member.method for member in done} or len(stages) != 1:
        return None
    *_, before, _ = ("", "", *stages.pop())
    asked = Asked(after=before)
    own = [curves(member.folder, asked.metric, cost=asked.cost, after=before) for member in done]
    tasks = {tuple(of_run) for of_run in own}
    # The first value is that before the stage.
    if tasks <= {()} or len(tasks) > 1 or any(len(c.costs) <= FEWEST for of_run in own for c in of_run.values()):
        return None
    result = compared(*gathered(done, asked), asked)
    rows = {
        name: [_cell(method, task, asked.cost) for task in result.targets] for name, method in result.methods.items()
    }
    return Table(
        columns=("arm", *_heads(result)),
        rows=tuple(tuple(Cell(text=text) for text in (name, *cells)) for name, cells in rows.items()),
    )


def show(found: Found) -> None:
    """Print the table."""
    title = f"{found.asked.cost} until {found.asked.metric} reaches its target"
    title += f", after {found.asked.after}" if found.asked.after else ""
    table = Printed("method", "score", "first", "arrives", *_heads(found), title=title, title_justify="left")
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
    baseline = ""
    for source in sources:
        name, place = ("", source) if Path(source).exists() else source.rpartition("=")[::2]
        if (Path(place) / RESULTS).exists():
            found += _of_sweep(Path(place), name)
            continue
        if (Path(place) / ARMS).is_dir():
            raise DataError(place, f"is a sweep without a {RESULTS} yet", fix="run `rlhf sweep FILE --collect`")
        folders = [Path(folder) for folder in sorted(glob.glob(place))] if name else [Path(place)]
        if not folders or not folders[0].exists():
            fix = "give the folder of a sweep, the folder of a run, or METHOD=RUN"
            raise DataError(source, "is neither a sweep nor a run", fix=fix)
        method = name or folders[0].absolute().name
        baseline = baseline or method
        found += [_alone(RunFolder.existing(folder), method, baseline) for folder in folders]
    done = [member for member in found if member.folder.summary.exists()]
    if not done:
        raise DataError(", ".join(sources), "no run has finished", fix="run the command that started them again")
    return done, [str(member.folder.path) for member in found if member not in done]


def _of_sweep(path: Path, name: str = "") -> Iterator[Member]:
    """All runs of a sweep, finished or not; it is called like its folder unless `name` says otherwise."""
    found = comparison.read(path / RESULTS)
    for arm in found.arms:
        for member in arm.members:
            yield Member(
                source=name or path.absolute().name,
                method=arm.name,
                baseline=found.baseline,
                seed=member.seed,
                folder=RunFolder(path / member.folder),
            )


def _alone(folder: RunFolder, method: str, baseline: str) -> Member:
    seed = int(yaml.safe_load(folder.config.read_text(encoding="utf-8"))["seed"])
    return Member(source="", method=method, baseline=baseline, seed=seed, folder=folder)


def _heads(found: Found) -> list[str]:
    """Tasks with their targets."""
    sign = "≤" if found.asked.lower else "≥"
    return [f"{task} {sign} {target.value:.4g}" for task, target in found.targets.items()]


def _all_to_be_paid(found: Found) -> None:
    """Refuse a target that costs nothing: there are no multiples of it."""
    for name, method in found.methods.items():
        for task, seeds in method.seeds.items():
            if not statistics.median(seeds.values()):
                problem = f"is what {name} has before costs begin"
                fix = "give a target that has to be trained for, or count from an earlier stage (--after)"
                raise DataError(f"--target {task}={found.targets[task].value:g}", problem, fix=fix)


def _cell(method: Method, task: str, cost: str) -> str:
    """`36 (×1.50)`; how many seeds arrived where not all did, and no multiple where the first had nothing to pay."""
    seeds, ratio = list(method.seeds[task].values()), method.profile.ratios[task]
    arrived = sum(math.isfinite(found) for found in seeds)
    some = f", {arrived} of {len(seeds)} seeds" if arrived < len(seeds) else ""
    paid = statistics.median(seeds)
    if math.isinf(paid):
        return f"missed{some}"
    multiple = f" (×{ratio:.2f})" if math.isfinite(ratio) else ""
    return f"{duration(paid) if cost == 'seconds' else amount(paid)}{multiple}{some}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
