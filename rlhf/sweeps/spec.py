"""A sweep file as checked objects: a base config, arms that change it, seeds, metrics, and what is expected of them.

    title: Clip-higher keeps entropy
    source: arXiv 2503.14476, section 3.1
    config: ../small.yaml                     # relative to this file
    arms:                                     # each a difference from it, as a recipe would hold it
      equal: {rl: {loss: {clip_high: 0.2}}}
      higher: {rl: {loss: {clip_high: 0.28}}}
    metrics: {entropy: {key: actor/entropy, window: 20}}
    expect: [{arm: higher, metric: entropy, direction: higher, margin: 0.02}]

Instead of `arms`, `grid: {rl.samples_per_prompt: [4, 8, 16]}` makes one arm per combination. Keys may be dotted. The
first arm is the baseline unless `baseline` names another.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.core import config
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.report.contrast import Direction

REDUCTIONS = ("mean", "change", "std", "max")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of a run, from a series of its `metrics.jsonl`."""

    key: str
    """Name in `metrics.jsonl`. `val-core/…/mean` and `val-aux/…/mean` of the last evaluation are paired by prompt."""
    window: int = 1
    """How many of the newest values of the last stage count."""
    reduce: str = "mean"
    """mean, std or max of the window; change is its mean less that of as many values at the stage's start."""

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError("window", f"{self.window} leaves no value", fix="use 1 or more")
        if self.reduce not in REDUCTIONS:
            raise ConfigError("reduce", f"'{self.reduce}' is unknown", fix=did_you_mean(self.reduce, REDUCTIONS))


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What an arm's difference from the baseline, or the arm itself, is claimed to be."""

    metric: str
    """Label of one of the metrics."""
    direction: str
    """higher, lower or same, than the baseline; or above, which speaks of the arm's own mean."""
    arm: str = ""
    """Empty: every arm but the baseline; for `above` the baseline too."""
    margin: float = 0.0
    """How far at least; for `same`, how far at most; for `above`, what the arm exceeds."""
    says: str = ""
    """The claim in words, for the report."""

    def __post_init__(self) -> None:
        if self.direction not in tuple(Direction):
            raise ConfigError("direction", f"'{self.direction}' is none", fix=did_you_mean(self.direction, Direction))
        if self.margin < 0:
            raise ConfigError("margin", f"{self.margin} is negative", fix="use 0 or more; `direction` has the sign")

    def speaks_of(self, arm: str, baseline: str) -> bool:
        """Whether the claim is one about this arm."""
        return self.arm in ("", arm) and (arm != baseline or self.direction == Direction.ABOVE)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a sweep file may hold."""

    title: str
    """The question in a few words."""
    source: str = ""
    """Where the claim comes from."""
    notes: str = ""
    """What a reader of the result should know."""
    config: str
    """Base config, relative to the sweep file."""
    set: dict[str, Any] = field(default_factory=dict[str, Any])
    """Differences from it that all arms share."""
    arms: dict[str, Any] = field(default_factory=dict[str, Any])
    """Differences by arm; an empty one is the base itself."""
    grid: dict[str, Any] = field(default_factory=dict[str, Any])
    """Instead of arms: lists of values by key."""
    baseline: str = ""
    """Arm that the others are compared with; empty: the first."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Every arm runs once with each."""
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    """What is measured, by label."""
    expect: list[Any] = field(default_factory=list[Any])
    """What the arms are claimed to do."""
    threads: int = 1
    """CPU threads of a run, however many run at once: results depend on it."""
    parallel: int = 0
    """Runs at once; 0: as many as the cores (on a machine with GPUs, the GPUs; with `--ray`, the cluster) hold."""
    minutes: float = 0.0
    """Wall-clock budget: no run starts after it; the same command goes on. 0: none."""
    give_up: bool = False
    """Give up runs whose forecast ends below the baseline's run with their seed; `set.budget` says by what and when.
    They are left out of the comparison and listed with the forecast."""
    folder: str = "sweeps"
    """Where sweeps are kept, relative to the working directory."""

    def __post_init__(self) -> None:
        if bool(self.arms) == bool(self.grid):
            raise ConfigError("arms", "and `grid` exclude each other, and one is needed", fix="name at least two arms")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError("seeds", f"{self.seeds} is empty or repeats one", fix="use seeds: [0, 1, 2]")
        for name, least in (("threads", 1), ("parallel", 0), ("minutes", 0)):
            if vars(self)[name] < least:
                raise ConfigError(name, f"{vars(self)[name]} is too small", fix=f"use {least} or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A checked sweep file."""

    path: Path
    name: str
    cfg: Config
    base: Path
    arms: Mapping[str, config.Tree]
    """Differences from the base and `set`, nested."""
    baseline: str
    metrics: Mapping[str, Metric]
    expect: Sequence[Expectation]
    overrides: Sequence[str]

    @property
    def command(self) -> str:
        """What runs this sweep."""
        return shlex.join(["rlhf", "sweep", str(self.path), *self.overrides])

    @property
    def folder(self) -> Path:
        return Path(self.cfg.folder) / self.name


def read(path: Path, overrides: Sequence[str] = ()) -> Spec:
    """Load and check a sweep file; `key=value` overrides its keys (`set.rl.steps=5` those of every run).

    Raises:
        ConfigError: with the path of the key, the valid choices and the fix.
    """
    cfg = config.build(Config, config.load(path, overrides).tree)
    base = (path.parent / cfg.config).resolve()
    if not base.is_file():
        raise ConfigError("config", f"there is no {base}", fix="give a path relative to the sweep file")
    arms = {name: nested(tree or {}, f"arms.{name}") for name, tree in cfg.arms.items()} or _combinations(cfg.grid)
    if len(arms) < 2:
        raise ConfigError("arms", "one arm has nothing to be compared with", fix="name at least two")
    for name in arms:
        if not name or not all(c.isalnum() or c in "-_.=," for c in name):
            raise ConfigError("arms", f"'{name}' cannot name a folder", fix="use letters, digits and - _ . =")
    baseline = cfg.baseline or next(iter(arms))
    metrics = {name: config.build(Metric, tree, f"metrics.{name}") for name, tree in cfg.metrics.items()}
    if not metrics:
        fix = "for example metrics: {accuracy: {key: val-core/sums/sampled_accuracy/mean}}"
        raise ConfigError("metrics", "nothing would be measured", fix=fix)
    expect = [config.build(Expectation, tree, f"expect[{i}]") for i, tree in enumerate(cfg.expect)]
    _known(baseline, arms, "baseline")
    for i, claim in enumerate(expect):
        _known(claim.metric, metrics, f"expect[{i}].metric")
        _known(claim.arm or baseline, arms, f"expect[{i}].arm")
        if claim.arm == baseline and not claim.speaks_of(baseline, baseline):
            raise ConfigError(f"expect[{i}].arm", "is the baseline itself", fix="name another arm, or none for all")
    return Spec(
        path=path,
        name=path.stem,
        cfg=cfg,
        base=base,
        arms=arms,
        baseline=baseline,
        metrics=metrics,
        expect=expect,
        overrides=tuple(overrides),
    )


def nested(tree: Any, where: str) -> config.Tree:
    """`{"rl.loss.clip_high": 0.28}` becomes `{"rl": {"loss": {"clip_high": 0.28}}}`; other mappings stay.

    Raises:
        ConfigError: not a mapping, or two keys that contradict each other.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(where, f"expected keys and values, got {tree!r}", fix="write {rl: {steps: 5}}")
    out: config.Tree = {}
    for key, value in tree.items():
        head, _, rest = str(key).partition(".")
        inner = nested({rest: value}, where) if rest else value
        inner = nested(inner, where) if isinstance(inner, Mapping) else inner
        before = out.get(head)
        if head in out and not (isinstance(before, dict) and isinstance(inner, dict)):
            raise ConfigError(f"{where}.{head}", "is given twice", fix="give it once")
        out[head] = _joined(before, inner, where) if isinstance(before, dict) else inner
    return out


def _joined(one: config.Tree, other: config.Tree, where: str) -> config.Tree:
    return nested({**config.flatten(one), **config.flatten(other)}, where)


def _combinations(grid: Mapping[str, Any]) -> dict[str, config.Tree]:
    """One arm per combination of values, named `samples_per_prompt=4,lr=0.1`."""
    for key, values in grid.items():
        if not isinstance(values, Sequence) or isinstance(values, str) or not values:
            raise ConfigError(f"grid.{key}", f"{values!r} is not a list of values", fix="write [4, 8, 16]")
    out: dict[str, config.Tree] = {}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        name = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items())
        out[name] = nested(chosen, "grid")
    return out


def _known(name: str, choices: Mapping[str, Any], where: str) -> None:
    if name not in choices:
        raise ConfigError(where, f"'{name}' is not defined", fix=did_you_mean(name, choices))
