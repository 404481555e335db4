"""From finished runs to a `Comparison`: estimates, paired differences, curves and verdicts. For sweeps and any runs."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from rlhf.core.errors import DataError
from rlhf.core.run_folder import RunFolder
from rlhf.report.comparison import Arm, Band, Comparison, Finding, Member, changed_keys
from rlhf.report.contrast import Direction, difference, estimate, judge
from rlhf.report.sweep_page import interval
from rlhf.sweeps import outcome
from rlhf.sweeps.outcome import Outcome
from rlhf.sweeps.spec import Expectation, Metric

PACKAGES = ("torch", "transformers", "numpy", "scipy")
CURVE_POINTS = 120
OWN = ("run", "seed", "threads", "device")
"""Config blocks that say where and as what a run ran, not what it did."""
USUAL = {
    "score": Metric(key="critic/score/mean", window=10),
    "entropy": Metric(key="actor/entropy", window=10),
    "response length": Metric(key="response_length/mean", window=10),
}
"""Metrics of any comparison, where the runs have them, besides all held-out ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One run to be compared."""

    arm: str
    seed: int
    folder: RunFolder
    status: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What surrounds the numbers."""

    name: str
    title: str
    command: str
    baseline: str
    source: str = ""
    notes: str = ""
    home: Path
    """Folder that links to runs are relative to."""


def compare(
    entries: Sequence[Entry], metrics: Mapping[str, Metric], expect: Sequence[Expectation], frame: Frame
) -> Comparison:
    """Estimate and contrast everything that has finished.

    Raises:
        DataError: runs have finished, and none recorded one of the metrics.
    """
    done = {id(entry): outcome.read(entry.folder) for entry in entries if entry.status == "done"}
    for label, fix in absent(list(done.values()), metrics).items():
        problem = f"no run recorded '{metrics[label].key}' in its last stage"
        raise DataError(f"metrics.{label}.key", problem, fix=fix)
    by_arm: dict[str, list[Entry]] = {}
    for entry in entries:
        by_arm.setdefault(entry.arm, []).append(entry)
    values = {
        label: {
            arm: {entry.seed: done[id(entry)].value(metric) for entry in members if id(entry) in done}
            for arm, members in by_arm.items()
        }
        for label, metric in metrics.items()
    }
    arms = [
        Arm(
            name=arm,
            members=[_member(entry, done.get(id(entry)), metrics, frame.home) for entry in members],
            estimates={label: estimate(list(found[arm].values())) for label, found in values.items()},
            differences={
                label: difference(found[arm], found[frame.baseline])
                for label, found in values.items()
                if arm != frame.baseline
            },
            curves=_curves([done[id(entry)] for entry in members if id(entry) in done], metrics),
        )
        for arm, members in by_arm.items()
    ]
    trees = {arm: _config(members) for arm, members in by_arm.items()}
    return Comparison(
        name=frame.name,
        title=frame.title,
        source=frame.source,
        notes=frame.notes,
        command=frame.command,
        baseline=frame.baseline,
        metrics={label: describe(metric) for label, metric in metrics.items()},
        changed=changed_keys({arm: tree for arm, tree in trees.items() if tree is not None}),
        arms=arms,
        findings=[finding for claim in expect for finding in _findings(claim, arms, frame.baseline)],
        versions={name: metadata.version(name) for name in PACKAGES},
    )


def of_runs(paths: Sequence[Path], home: Path) -> Comparison:
    """Compare finished runs. Those whose configs differ in nothing but seed and name are seeds of one arm.

    Args:
        paths: of run folders; the arm of the first is the baseline.
        home: folder that links are relative to.

    Raises:
        RunFolderError: one of them is no run folder.
        DataError: one of them has not finished, or two are the same run of the same arm.
    """
    entries = entries_of(paths)
    outcomes = [outcome.read(entry.folder) for entry in entries]
    seen = [(entry.arm, entry.seed) for entry in entries]
    twice = [f"{arm} with seed {seed}" for arm, seed in sorted(set(seen)) if seen.count((arm, seed)) > 1]
    if twice:
        raise DataError("runs", f"{', '.join(twice)} is there twice", fix="leave one of them out")
    if len({entry.arm for entry in entries}) < 2:
        fix = "name runs of at least two configs; to see one run, use rlhf report"
        raise DataError("runs", "all have the same config but for the seed", fix=fix)
    frame = Frame(
        name="compare",
        title=" against ".join(dict.fromkeys(entry.arm for entry in entries)),
        command=f"rlhf compare {' '.join(map(str, paths))}",
        baseline=entries[0].arm,
        home=home,
    )
    return compare(entries, _shared_metrics(outcomes), [], frame)


def entries_of(paths: Sequence[Path]) -> list[Entry]:
    """Finished runs by arm and seed; an arm is called like the first of its runs.

    Raises:
        RunFolderError: one of them is no run folder.
    """
    groups: dict[str, list[RunFolder]] = {}
    for folder in map(RunFolder.existing, paths):
        groups.setdefault(_fingerprint(folder), []).append(folder)
    out: list[Entry] = []
    for members in groups.values():
        for folder in members:
            tree = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
            out.append(Entry(arm=members[0].path.name, seed=int(tree["seed"]), folder=folder, status="done"))
    return out


def describe(metric: Metric) -> str:
    """A metric in words: `actor/entropy, mean of the last 20 values`."""
    if metric.window == 1 and metric.reduce == "mean":
        return f"{metric.key}, last value"
    if metric.reduce == "change":
        return f"{metric.key}, mean of the last {metric.window} values less that of the first {metric.window}"
    return f"{metric.key}, {metric.reduce} of the last {metric.window} values"


def _member(entry: Entry, found: Outcome | None, metrics: Mapping[str, Metric], home: Path) -> Member:
    values = {} if found is None else {label: found.value(metric) for label, metric in metrics.items()}
    means = {label: statistics.fmean(value.values()) for label, value in values.items() if value}
    return Member(
        seed=entry.seed,
        status=entry.status,
        error=entry.error,
        folder=_relative(entry.folder.path, home),
        values=means,
        tokens=0 if found is None else found.tokens,
        seconds=0.0 if found is None else found.seconds,
    )


def absent(found: Sequence[Outcome], metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Metrics that none of these runs recorded in its last stage, each with what may have been meant."""
    known = set[str]().union(*(one.keys() for one in found))
    missing = [label for label, metric in metrics.items() if found and not any(one.value(metric) for one in found)]
    return {label: _nearest(metrics[label].key, known) for label in missing}


def _nearest(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=3, cutoff=0.4)
    perhaps = f"perhaps {' or '.join(near)}; " if near else ""
    return f"{perhaps}a key is one of metrics.jsonl"


def _relative(path: Path, home: Path) -> str:
    return os.path.relpath(path, home)


def _curves(outcomes: Sequence[Outcome], metrics: Mapping[str, Metric]) -> dict[str, Band]:
    out: dict[str, Band] = {}
    for label, metric in metrics.items():
        series = [found.series(metric.key) for found in outcomes]
        steps = sorted(set.intersection(*map(set, series))) if series else []
        if not steps:
            continue
        stride = -(-len(steps) // CURVE_POINTS)
        kept = [step for i, step in enumerate(steps) if i % stride == 0 or step == steps[-1]]
        rows = [[values[step] for values in series] for step in kept]
        out[label] = Band(
            steps=kept,
            mean=[_rounded(statistics.fmean(row)) for row in rows],
            low=[_rounded(min(row)) for row in rows],
            high=[_rounded(max(row)) for row in rows],
        )
    return out


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _config(members: Sequence[Entry]) -> dict[str, Any] | None:
    """The resolved config of an arm, without what names its runs."""
    for entry in members:
        if entry.folder.config.exists():
            tree = yaml.safe_load(entry.folder.config.read_text(encoding="utf-8"))
            return {key: value for key, value in tree.items() if key not in OWN}
    return None


def _fingerprint(folder: RunFolder) -> str:
    tree = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    kept = {key: value for key, value in tree.items() if key not in OWN}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _shared_metrics(outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    keys = [{key for row in found.rows for key in row} for found in outcomes]
    common = set.intersection(*keys)
    held_out = sorted(key for key in common if key.startswith("val-core/") and key.endswith("/mean"))
    found = {key.removeprefix("val-core/").removesuffix("/mean"): Metric(key=key) for key in held_out}
    for label, metric in USUAL.items():
        if all(metric.key in row for outcome_ in outcomes for row in outcome_.rows[-1:]):
            found[label] = metric
    return found


def _findings(claim: Expectation, arms: Sequence[Arm], baseline: str) -> list[Finding]:
    out: list[Finding] = []
    for arm in arms:
        if not claim.speaks_of(arm.name, baseline):
            continue
        alone = claim.direction == Direction.ABOVE
        found = (arm.estimates if alone else arm.differences)[claim.metric]
        verdict = judge(found, direction=Direction(claim.direction), margin=claim.margin)
        over = f" over {found.over}" if found is not None and found.over != "nothing" else ""
        what = arm.name if alone else f"{arm.name} less {baseline}"
        sentence = (
            f"{claim.metric}, {what}: {interval(found, signed=not alone)}{over};"
            f" expected {_wanted(claim)}: {verdict.value}"
        )
        out.append(
            Finding(
                arm=arm.name,
                metric=claim.metric,
                direction=claim.direction,
                margin=claim.margin,
                says=claim.says,
                verdict=verdict,
                sentence=sentence,
            )
        )
    return out


def _wanted(claim: Expectation) -> str:
    """What is expected, in words."""
    if claim.direction == Direction.SAME:
        return f"within ±{claim.margin:g}"
    if claim.direction == Direction.ABOVE:
        return f"above {claim.margin:g}"
    return f"{claim.direction} by more than {claim.margin:g}" if claim.margin else claim.direction
