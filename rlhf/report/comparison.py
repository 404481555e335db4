"""What a sweep or a comparison of runs found: the content of `results.json`, and of the page made from it.

Everything but `seconds` is a function of configs, data and code, so that a sweep that was killed and continued gives
the same as one that was not.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.core import config
from rlhf.core.errors import DataError
from rlhf.core.run_folder import write_whole
from rlhf.report.contrast import Estimate, Verdict

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One run of an arm."""

    seed: int
    status: str
    """done, failed, or not run yet."""
    error: str
    """Last words of a failed run."""
    folder: str
    """Relative to the file that this is stored in."""
    values: Mapping[str, float]
    """Mean by metric label."""
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A learning curve: the mean over seeds, and the lowest and highest of them, where all have a value."""

    steps: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One configuration."""

    name: str
    members: Sequence[Member]
    estimates: Mapping[str, Estimate | None]
    """By metric label; None when no run has it."""
    differences: Mapping[str, Estimate | None]
    """From the baseline, paired; empty for the baseline itself."""
    curves: Mapping[str, Band]
    """By metric label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An expectation and what became of it."""

    arm: str
    metric: str
    direction: str
    margin: float
    says: str
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The whole result."""

    name: str
    title: str
    source: str
    notes: str
    command: str
    baseline: str
    metrics: Mapping[str, str]
    """Label to what it is: key, window and reduction in words."""
    changed: Mapping[str, Mapping[str, Any]]
    """Config keys that differ between arms, and each arm's value."""
    arms: Sequence[Arm]
    findings: Sequence[Finding]
    versions: Mapping[str, str]

    @property
    def complete(self) -> bool:
        return all(member.status == "done" for arm in self.arms for member in arm.members)


def write(found: Comparison, path: Path) -> None:
    """Store as JSON."""
    content = {"format": FORMAT, **dataclasses.asdict(found)}
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> Comparison:
    """Load what `write` stored.

    Raises:
        DataError: it is missing, broken, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("it is of another version of this program")
        return typing.cast(Comparison, _built(Comparison, content))
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "run the sweep again; finished runs are not repeated"
        raise DataError(str(path), f"cannot be read: {error}", fix=fix) from error


def changed_keys(trees: Mapping[str, config.Tree]) -> dict[str, dict[str, Any]]:
    """Keys whose values differ between resolved configs; a key that one lacks is null there.

    Args:
        trees: by arm, without what differs by nature (run, seed).
    """
    flat = {arm: config.flatten(tree) for arm, tree in trees.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    rows = {key: {arm: values.get(key) for arm, values in flat.items()} for key in keys}
    return {key: row for key, row in rows.items() if any(value != next(iter(row.values())) for value in row.values())}


def _built(hint: Any, value: Any) -> Any:
    """Plain JSON content as the type that a dataclass field declares."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = typing.get_type_hints(hint)
        return hint(**{field.name: _built(hints[field.name], value[field.name]) for field in dataclasses.fields(hint)})
    inner = typing.get_args(hint)
    if value is None or hint is Any:
        return value
    if type(None) in inner:
        return _built(next(t for t in inner if t is not type(None)), value)
    if isinstance(value, list):
        return [_built(inner[0], item) for item in value] if inner else value
    if isinstance(value, dict):
        return {key: _built(inner[1], item) for key, item in value.items()} if inner else value
    return hint(value) if hint is Verdict else value
