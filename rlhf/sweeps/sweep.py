"""`rlhf sweep`: run what is missing, then say what it shows.

A sweep is its folder, `sweeps/<name>`: configs of the arms, runs, logs, and `results.json` and `report.html` made from
them. Nothing else is remembered, so the same command continues whatever ended it, adds a seed, or repeats a failed run.
An array job runs shares of it (`share`) and collects once at the end.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf.core import config
from rlhf.core.errors import ConfigError, DataError
from rlhf.loops import plan
from rlhf.loops.care import Cared
from rlhf.loops.settings import Experiment
from rlhf.report import sweep_page
from rlhf.report.comparison import Comparison, write
from rlhf.report.contrast import Verdict
from rlhf.report.sweep_page import interval
from rlhf.report.units import amount, duration
from rlhf.sweeps import compare, outcome, profile_command, ray_server, runner, runs, significance
from rlhf.sweeps.compare import Entry, Frame
from rlhf.sweeps.local_processes import LocalProcesses
from rlhf.sweeps.ray_jobs import RayJobs
from rlhf.sweeps.runs import Run, Status
from rlhf.sweeps.spec import Spec

CACHE = "cache"
"""Folder of shared stages, beside the sweeps that share them."""
GIVEN_UP = "given up"
"""What has become of a run that would have ended below the baseline."""
COLOURS = {Verdict.HOLDS: "green", Verdict.FAILS: "red", Verdict.UNDECIDED: "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of a sweep's runs to run: the `index`-th of `count`, from 0."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """`2/8` is the third of eight.

        Raises:
            ConfigError: it is not.
        """
        index, _, count = text.partition("/")
        if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
            raise ConfigError("--share", f"'{text}' is no share", fix="write I/N with I from 0 to N-1, for example 0/4")
        return cls(index=int(index), count=int(count))


def execute(spec: Spec, *, cached: bool = True, share: Share | None = None, ray: str | None = None) -> Path | None:
    """Run everything that is missing, then collect. Returns the page, or None for a share of the runs.

    Args:
        spec: of the sweep.
        cached: whether runs share stages.
        share: of the runs; None runs all.
        ray: address of the cluster whose jobs the runs are; None runs them on this machine.

    Raises:
        ConfigError: an arm does not fit its base.
        DataError: a run failed; the result of the others has been written.
    """
    planned = runs.lay_out(spec)
    mine = planned if share is None else planned[share.index :: share.count]
    if spec.cfg.give_up:
        mine = sorted(mine, key=lambda run: run.arm != spec.baseline)
    executor = _executor(spec, cached=cached, ray=ray)
    done = sum(run.status == Status.DONE for run in mine)
    print(f"{spec.name}: {len(mine)} runs, {done} of them done, {executor.describe()}", flush=True)
    runner.execute(mine, executor, seconds=60 * spec.cfg.minutes, notice=_say, look=_missing(spec))
    if share is None:
        return collect(spec, planned)
    _raise_failures(mine)
    return None


def _missing(spec: Spec) -> Callable[[Run], None]:
    """Says of a metric once that a run has ended without it: whoever wrote its name wrong should not learn that from
    the last run. Metrics of other arms' losses are said to be missing, too."""
    told = set[str]()

    def look(run: Run) -> None:
        for label, fix in compare.absent([outcome.read(run.folder)], spec.metrics).items():
            if label not in told:
                _say(f"{'note':<9} {run.name}  recorded no '{spec.metrics[label].key}' (metrics.{label}.key); {fix}")
            told.add(label)

    return look


def collect(spec: Spec, planned: Sequence[Run] | None = None) -> Path:
    """Write `results.json` and `report.html` from the runs that there are, and print the result. Returns the page.

    Raises:
        DataError: a run failed.
    """
    planned = runs.lay_out(spec) if planned is None else planned
    entries = [
        Entry(
            arm=run.arm,
            seed=run.seed,
            folder=run.folder,
            status=GIVEN_UP if run.given_up else run.status.value,
            error=run.given_up or _last_words(run),
        )
        for run in planned
    ]
    frame = Frame(
        name=spec.name,
        title=spec.cfg.title,
        source=spec.cfg.source,
        notes=spec.cfg.notes,
        command=spec.command,
        baseline=spec.baseline,
        home=spec.folder,
    )
    found = compare.compare(entries, spec.metrics, spec.expect, frame)
    write(found, spec.folder / "results.json")
    page = sweep_page.write(found, spec.folder / "report.html", reached=profile_command.of_sweep(spec.folder))
    show(found)
    print(f"report: {page}")
    _raise_failures(planned)
    return page


def show_plan(spec: Spec) -> None:
    """Print what a sweep would run, and check that every arm can, without running anything.

    Raises:
        UserError: an arm cannot run.
    """
    with tempfile.TemporaryDirectory() as scratch:
        elsewhere = replace(spec, cfg=replace(spec.cfg, folder=scratch))
        planned = runs.lay_out(elsewhere)
        table = Table("arm", "runs", "stages", "steps", title=spec.cfg.title, title_justify="left")
        known = dict[str, Cared]()
        for arm in spec.arms:
            first = next(run for run in planned if run.arm == arm).experiment()
            data = _data(first)
            known[data] = plan.check(first, known=known.get(data))
            steps = sum(stage.config.steps for stage in first.stages)
            table.add_row(arm, str(len(spec.cfg.seeds)), ", ".join(first.settings.stages), str(steps))
    console = Console()
    console.print(table)
    console.print(f"{len(planned)} runs, {_executor(spec).describe()}", highlight=False)


def _data(experiment: Experiment) -> str:
    """What the gold answers of a run depend on, and the verdicts on them; the same where that is the same."""
    tree = config.to_tree(experiment.settings)
    return json.dumps([tree[key] for key in ("seed", "task", "care", "rewards", "rubric")])


def compare_runs(paths: Sequence[Path], *, out: Path | None) -> None:
    """`rlhf compare`: print what finished runs differ in, and write it if asked to.

    Raises:
        UserError: they cannot be compared; says why.
    """
    home = out.parent if out is not None else Path.cwd()
    found = compare.of_runs(paths, home)
    show(found)
    differing = Table("key", *(arm.name for arm in found.arms), title="config keys that differ", title_justify="left")
    for key, row in found.changed.items():
        differing.add_row(key, *(str(row.get(arm.name)) for arm in found.arms))
    Console().print(differing)
    tested = significance.of_runs(compare.entries_of(paths))
    significance.show(tested)
    if out is not None:
        write(found, out.with_suffix(".json"))
        significance.write(tested, out.with_suffix(".tests.json"))
        print(f"report: {sweep_page.write(found, out, significance.tables(tested))}")


def show(found: Comparison) -> None:
    """Print the table of results and the verdicts."""
    console = Console()
    table = Table("metric", "arm", "mean [95 %]", f"less {found.baseline}", title=found.title, title_justify="left")
    for label in found.metrics:
        for arm in found.arms:
            less = interval(arm.differences[label], signed=True) if arm.differences else ""
            table.add_row(label if arm is found.arms[0] else "", arm.name, interval(arm.estimates[label]), less)
        table.add_section()
    for arm in found.arms:
        tokens, seconds = sum(m.tokens for m in arm.members), sum(m.seconds for m in arm.members)
        table.add_row(
            "cost" if arm is found.arms[0] else "", arm.name, f"{amount(tokens)} tokens, {duration(seconds)}", ""
        )
    console.print(table)
    for finding in found.findings:
        console.print(Text(finding.sentence, style=COLOURS[finding.verdict]))


def _executor(spec: Spec, *, cached: bool = True, ray: str | None = None) -> runner.Executor:
    cache = Path(spec.cfg.folder) / CACHE if cached else None
    if ray is None:
        return LocalProcesses(parallel=spec.cfg.parallel, threads=spec.cfg.threads, cache=cache)
    server = ray_server.connect(ray)
    return RayJobs(server, parallel=spec.cfg.parallel, threads=spec.cfg.threads, cache=cache, notice=_say)


def _say(line: str) -> None:
    print(line, flush=True)


def _last_words(run: Run) -> str:
    return run.failed.read_text(encoding="utf-8") if run.status == Status.FAILED else ""


def _raise_failures(planned: Sequence[Run]) -> None:
    failed = [run for run in planned if run.status == Status.FAILED]
    if not failed:
        return
    last = _last_words(failed[0]).strip().splitlines()
    names = ", ".join(run.name for run in failed)
    fix = f"read {failed[0].log}, mend the cause and run the same command: only these runs are run again"
    raise DataError(names, f"failed: {last[-1] if last else 'without a word'}", fix=fix)
