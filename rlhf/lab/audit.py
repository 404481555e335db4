"""`rlhf audit`: how often a grader is wrong, on answers of which it is known whether they are right.

An audit is a YAML file: corpora, the reward that grades each, further graders beside it, and limits.

    corpora:
      rewrites:
        corpus: {name: rewrites, items: 2000}     # a file in rlhf/lab/corpora
        reward: math
        beside: {math_verify: {name: rlhf.lab.math_verify}}
        max_false_positives: 0
        min_agreement: 0.99

A right answer that is not graded correct is a false negative, a wrong one that is a false positive; what gets no grade
is neither, and no agreement. The reward's own verdict is measured: whether it is `correct`, not what it is worth. With
`verdict: refused` labels say whether an answer declines, and it is measured whether the reward sees that.
Each case is graded alone and timed. Code in an answer would, if it ran, leave a file in the canary folder.
"""

from __future__ import annotations

import contextlib
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rewards import base, rubric
from rewards.pool import WorkerPool
from rlhf.core import config
from rlhf.core.component import Component
from rlhf.core.config import slot, slots
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.types import Group, Message, Prompt, RewardOut, Verdict
from rlhf.lab.cases import Case

_STATUS = Path("/proc/self/status")
VERDICTS = (Verdict.CORRECT.value, Verdict.REFUSED.value)
SLOW = 3
"""Times that a slow case is graded in all before its time counts: a busy machine stops now and then."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A corpus, its graders, and how good the first of them must be. A limit of null is none."""

    corpus: Component = slot("rlhf.lab.corpora", "rewrites")
    """Where the labelled answers come from."""
    reward: Component = slot("rewards", "math")
    """The grader that is measured."""
    beside: dict[str, Component] = slots("rewards")
    """Further graders for comparison, by label; none of the limits concerns them."""
    verdict: str = "correct"
    """What a label of true stands for: `correct`, or `refused` for answers that decline."""
    max_false_positives: int | None = 0
    """Answers that may be graded so against their label: wrong ones graded correct."""
    max_false_negatives: int | None = None
    """Answers that may not be graded so against their label: right ones graded wrong."""
    min_agreement: float | None = None
    """Least share of the labelled answers that are graded as labelled."""
    max_ungraded: int | None = 0
    """Answers that may get no grade: time-outs, crashes, golds that cannot be read."""
    max_milliseconds: float | None = None
    """Longest time for one answer; the quickest of three tries counts."""
    max_memory_mb: float | None = None
    """Growth of this process's peak memory over the corpus."""

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise ConfigError("min_agreement", f"{self.min_agreement} is not a share", fix="use 0.97 or the like")
        if self.verdict not in VERDICTS:
            raise ConfigError("verdict", f"'{self.verdict}' is no label's", fix=did_you_mean(self.verdict, VERDICTS))


@dataclass(frozen=True, kw_only=True)
class Config:
    """An audit file."""

    title: str
    """What is audited, in a few words."""
    data: str = ""
    """Folder of data files, for `${data}/…` in the paths of corpora."""
    seed: int = 0
    """Of whatever corpora draw."""
    corpora: dict[str, Any] = field(default_factory=dict[str, Any])
    """What is measured, by label; null takes an inherited one out."""

    def __post_init__(self) -> None:
        if not self.corpora:
            raise ConfigError("corpora", "nothing would be measured", fix="name at least one corpus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A case and what a grader said of it."""

    case: Case
    out: RewardOut
    seconds: float
    asked: Verdict = Verdict.CORRECT
    """What its label is about."""

    @property
    def right(self) -> bool | None:
        """Whether the verdict is that of the label; None where it need not be."""
        if self.case.label is None:
            return None if self.out.value is not None else False
        return self.out.value is not None and self.accepted == self.case.label

    @property
    def accepted(self) -> bool:
        return self.out.verdict is self.asked

    @property
    def fault(self) -> str:
        """What is wrong with the verdict; empty when nothing is."""
        if self.right is not False:
            return ""
        if self.out.value is None:
            return "not graded"
        return "false positive" if self.accepted else "false negative"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """A grader on a corpus, or on one of its categories."""

    graded: Sequence[Graded]

    @property
    def labelled(self) -> int:
        return sum(g.case.label is not None for g in self.graded)

    @property
    def agreement(self) -> float:
        """Share of the labelled answers that are graded as labelled; 1 where none is labelled."""
        return 1 - sum(g.case.label is not None and not g.right for g in self.graded) / max(1, self.labelled)

    def count(self, fault: str) -> int:
        """Cases with that fault."""
        return sum(g.fault == fault for g in self.graded)

    def by_category(self) -> dict[str, Tally]:
        """The same, apart; larger categories first."""
        found: dict[str, list[Graded]] = {}
        for graded in self.graded:
            found.setdefault(graded.case.category, []).append(graded)
        return {name: Tally(graded=rows) for name, rows in sorted(found.items(), key=lambda e: (-len(e[1]), e[0]))}

    def milliseconds(self, share: float) -> float:
        """The time that so large a share of the cases stays within."""
        times = sorted(g.seconds for g in self.graded)
        return 1e3 * times[min(len(times) - 1, int(share * len(times)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit and what was measured."""

    name: str
    measured: str
    allowed: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A measured corpus."""

    name: str
    cfg: Measured
    tallies: Mapping[str, Tally]
    """By grader, the measured one first."""
    memory_mb: float
    left: Sequence[str]
    """Files in the canary folders: code of an answer was run."""
    limits: Sequence[Limit]

    @property
    def own(self) -> Tally:
        return next(iter(self.tallies.values()))

    @property
    def holds(self) -> bool:
        return all(limit.holds for limit in self.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All of it."""

    title: str
    findings: Sequence[Finding]

    @property
    def holds(self) -> bool:
        return all(finding.holds for finding in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked audit file."""

    title: str
    seed: int
    corpora: Mapping[str, Measured]


def read(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """Load and check an audit file; `key=value` overrides its keys.

    Raises:
        ConfigError: names the key, the choices and the fix.
    """
    cfg = config.build(Config, config.load(path, overrides).tree)
    trees = {name: tree for name, tree in cfg.corpora.items() if tree is not None}
    corpora = {name: config.build(Measured, tree, f"corpora.{name}") for name, tree in trees.items()}
    return Plan(title=cfg.title, seed=cfg.seed, corpora=corpora)


def audit(path: Path, overrides: Sequence[str] = ()) -> Audit:
    """Measure every corpus of an audit file.

    Raises:
        UserError: the file, a corpus or a grader cannot be used; names the key and the fix.
    """
    plan = read(path, overrides)
    with WorkerPool() as pool:
        findings = [_measure(name, corpus, plan.seed, pool) for name, corpus in plan.corpora.items()]
    return Audit(title=plan.title, findings=findings)


def _measure(name: str, cfg: Measured, seed: int, pool: WorkerPool) -> Finding:
    with tempfile.TemporaryDirectory(prefix="canary") as canary:
        folders = [Path(canary), *([Path(own)] if (own := vars(cfg.corpus.config).get("canary")) else [])]
        before = {path for folder in folders for path in folder.glob("*")}
        cases = list(cfg.corpus.module.cases(cfg.corpus.config, seed=seed, canary=canary))
        if not cases:
            raise ConfigError(f"corpora.{name}", "no case is left to measure", fix="loosen `where`, check the labels")
        _forget_peak()
        peak = _peak_mb()
        measured = _graded(name, cases, cfg.reward, pool, cfg.max_milliseconds)
        tallies = {cfg.reward.name: _tally(measured, cfg)}
        memory = _peak_mb() - peak
        for label, grader in cfg.beside.items():
            tallies[label] = _tally(_graded(name, cases, grader, pool, None), cfg)
        left = sorted({str(path) for folder in folders for path in folder.glob("*")} - set(map(str, before)))
    own = next(iter(tallies.values()))
    return Finding(
        name=name, cfg=cfg, tallies=tallies, memory_mb=memory, left=left, limits=_limits(cfg, own, memory, left)
    )


def _tally(graded: Iterable[Graded], cfg: Measured) -> Tally:
    return Tally(graded=[replace(entry, asked=Verdict(cfg.verdict)) for entry in graded])


def _graded(
    name: str, cases: Sequence[Case], grader: Component, pool: WorkerPool, allowed_ms: float | None
) -> Iterator[Graded]:
    for case in cases:
        group = _group(case)
        graded = _once(name, case, group, grader, pool)
        for _ in range(SLOW - 1):
            if allowed_ms is None or 1e3 * graded.seconds <= allowed_ms:
                break
            again = _once(name, case, group, grader, pool)
            graded = min(graded, again, key=lambda g: g.seconds)
        yield graded


def _once(name: str, case: Case, group: Group, grader: Component, pool: WorkerPool) -> Graded:
    begin = time.perf_counter()
    try:
        [scored] = rubric.score_groups([group], {name: grader}, rubric.RubricConfig(), pool)
    except ConfigError as error:
        raise ConfigError(f"corpora.{name}: {error.where}", error.problem, fix=error.fix) from error
    spent = time.perf_counter() - begin
    return Graded(case=case, out=replace(scored.rewards[0], breakdown={}), seconds=spent)


def _group(case: Case) -> Group:
    asked = (Message(role=base.USER, content=case.prompt),)
    prompt = Prompt(id=case.id, messages=asked, gold=case.gold, task="", columns=case.columns)
    return base.answered(prompt, case.completion)


def _limits(cfg: Measured, own: Tally, memory: float, left: Sequence[str]) -> list[Limit]:
    longest = own.milliseconds(1.0)
    out = [Limit(name="code run", measured=str(len(left)), allowed="0", holds=not left)]
    for name, allowed, measured in (
        ("false positives", cfg.max_false_positives, own.count("false positive")),
        ("false negatives", cfg.max_false_negatives, own.count("false negative")),
        ("ungraded", cfg.max_ungraded, own.count("not graded")),
    ):
        if allowed is not None:
            out.append(Limit(name=name, measured=str(measured), allowed=f"≤ {allowed}", holds=measured <= allowed))
    if (least := cfg.min_agreement) is not None:
        holds = own.agreement >= least
        out.append(Limit(name="agreement", measured=f"{own.agreement:.2%}", allowed=f"≥ {least:.2%}", holds=holds))
    if (most := cfg.max_milliseconds) is not None:
        out.append(Limit(name="longest", measured=f"{longest:.1f} ms", allowed=f"≤ {most:g} ms", holds=longest <= most))
    if (most := cfg.max_memory_mb) is not None:
        out.append(Limit(name="memory", measured=f"{memory:.0f} MB", allowed=f"≤ {most:g} MB", holds=memory <= most))
    return out


def _peak_mb() -> float:
    """The most memory that this process has had, since `_forget_peak` where the kernel lets it forget."""
    if _STATUS.exists():
        found = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(found.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _forget_peak() -> None:
    """Let the peak be what is in use now. See `clear_refs` in https://docs.kernel.org/filesystems/proc.html."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
