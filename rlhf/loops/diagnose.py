"""`rlhf diagnose`: why the sampler's log-probs of a run differ from the trainer's, by ruling causes in and out.

Samples whose weights a checkpoint still holds are looked at again: the trainer computes their log-probs under one
assumption after the other (`hypotheses`), and what makes most of the gap vanish is its cause. What is left is tested
further, since a gap can have several; what no assumption explains is the kernels: same tokens, weights, transforms and
dtype, other arithmetic. The run is only read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from rlhf.core.errors import RunFolderError
from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.core.sampling import Transforms
from rlhf.learner import checkpoint
from rlhf.loops import online, settings, setup
from rlhf.loops.hypotheses import Cause, Hypothesis, hypotheses, spoken
from rlhf.loops.recompute import Assumption, Gap, Recomputer, Record, versions_of
from rlhf.loops.stage import JUDGES
from rlhf.runtime import host

SAMPLES = 64
"""Looked at, at most."""
LARGE = 0.01
"""From here on a gap is large: probabilities are off by this share on average, or the k3 KL is a tenth of it."""
SHOWN = 3
"""Hypotheses of each cause in the table, the best ones."""
EXPLAINS = 0.5
"""Share of a gap that a cause may leave."""
ALIKE = 0.3
"""Correlation from which on the errors of two computations in low precision have the same source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Samples of one step, all of the same version of the weights, which is still there."""

    records: Sequence[Record]
    stage: settings.StageSettings
    step: int
    version: int
    """That sampled them."""
    trained_at: int | None
    """That the step's updates started from; None when no checkpoint tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table."""

    name: str
    gap: Gap
    cause: Cause | None = None
    """What is at fault if little of the gap is left here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A cause, and what gave it away."""

    cause: Cause
    name: str
    before: Gap
    left: Gap
    crossed: bool = False
    """Of stale weights: the samples say themselves that they are older than what learnt from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a run's gap comes from."""

    evidence: Evidence
    tokens: int
    transforms: Transforms
    """Of the config."""
    above: float
    """Smallest mean gap that a cause was looked for."""
    rows: Sequence[Row]
    causes: Sequence[Found]
    """Empty when there is no large gap."""
    left: Gap
    logged: Gap | None
    """By the run itself in that step, over all its trained tokens."""


def show(run: Path, *, above: float = LARGE) -> None:
    """Diagnose and print."""
    console = Console(highlight=False)
    result = diagnose(run, above=above)
    seen = result.evidence
    console.print(
        f"{len(seen.records)} samples, {result.tokens} tokens, of step {seen.step} ({seen.stage.name}), sampled by the"
        f" weights of version {seen.version}"
    )
    table = Table("the trainer's log-probs with", box=None, padding=(0, 2, 0, 0))
    for title in ("mean gap", "largest", "k3"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("would be", no_wrap=True)
    for row in _shown(result.rows):
        cells = (row.gap.mean, row.gap.largest, row.gap.k3)
        table.add_row(row.name, *(f"{cell:.2g}" for cell in cells), row.cause or "", style=_style(row, result))
    console.print(table)
    for line in verdict(result):
        console.print(line, markup=False)


def diagnose(run: Path, *, above: float = LARGE) -> Diagnosis:
    """Find out what the gap between sampler and trainer comes from.

    Args:
        run: folder of the run.
        above: smallest mean gap to look for causes of.

    Raises:
        RunFolderError: not a run, or no sample of an online stage whose weights are still there.
    """
    folder = RunFolder.existing(run.resolve())
    experiment = settings.read(folder.config)
    host.prepare(experiment.settings.threads)
    with tempfile.TemporaryDirectory() as scratch:
        home = folder.model if folder.model.exists() else Path(scratch) / "model"
        shared = setup.parts(experiment.settings, home)
        weights, starts = _weights(folder, shared.model_folder)
        evidence = _evidence(experiment, folder, weights, starts)
        recomputer = Recomputer(
            records=evidence.records,
            version=evidence.version,
            weights=weights,
            opened=lambda path: setup.opened(experiment.settings, path),
            tokenizer=shared.tokenizer,
            cfg=evidence.stage.config.learner,
            prompts={prompt.id: prompt for prompt in shared.task.train()},
            device=shared.device,
        )
        own = experiment.settings.sampling
        transforms = Transforms(temperature=own.temperature, top_k=own.top_k, top_p=own.top_p)
        return _diagnosed(evidence, recomputer, transforms, _logged(folder, evidence.step), above)


def verdict(result: Diagnosis) -> Iterator[str]:
    """The diagnosis in words, with what to do about it."""
    if not result.causes:
        yield f"verdict: no large gap (mean {result.left.mean:.2g}, k3 {result.left.k3:.2g})"
        if result.logged is not None and result.logged.mean > max(LARGE, 2 * result.left.mean):
            yield (
                f"  but the run logged a mean of {result.logged.mean:.2g} in that step: its trainer computed otherwise"
                " than this machine does; run `rlhf diagnose` where the run was trained"
            )
        return
    for found in result.causes:
        yield f"verdict: {found.cause}: {_explained(found, result)}"
        yield f"  fix: {_fix(found, result)}"
    if result.causes[-1].left.mean < result.causes[-1].before.mean and _large(result.left, result.above):
        yield f"  a mean gap of {result.left.mean:.2g} is left that no one further assumption explains: mend this first"


def _diagnosed(
    evidence: Evidence, of: Recomputer, transforms: Transforms, logged: Gap | None, above: float
) -> Diagnosis:
    sampler_T = of.sampler_T
    now = Assumption(version=evidence.version, transforms=transforms)
    rows: list[Row] = []
    causes: list[Found] = []
    left = Gap.between(of.trainer_T(now), sampler_T)
    sampled = Row(name=f"weights of version {now.version}, which sampled, and all else as configured", gap=left)
    learnt = _when_learnt(evidence, of, now, logged)
    if learnt is not None:
        rows.append(learnt)
        sampled = replace(sampled, cause=Cause.STALE)
        if _large(learnt.gap, above) and left.mean <= EXPLAINS * learnt.gap.mean:
            found = Found(cause=Cause.STALE, name=sampled.name, before=learnt.gap, left=left, crossed=True)
            causes.append(found)
    rows.append(sampled)
    while _large(left, above):
        known = [found for found in causes if not found.crossed]
        tried = [h for h in hypotheses(now, of) if h.cause not in {found.cause for found in known}]
        gaps = [Gap.between(of.trainer_T(h.assumption), sampler_T) for h in tried]
        given = "".join(f"{found.name}, and " for found in known)
        rows += [Row(name=given + h.name, gap=gap, cause=h.cause) for h, gap in zip(tried, gaps, strict=True)]
        best = min(range(len(tried)), key=lambda i: gaps[i].mean, default=None)
        if best is None or gaps[best].mean > EXPLAINS * left.mean:
            alike = next((h for h in tried if _errs_alike(h, now, of)), None)
            if alike is not None:
                causes.append(Found(cause=Cause.DTYPE, name=alike.name, before=left, left=left))
            elif not known:
                causes.append(Found(cause=Cause.KERNEL, name="", before=left, left=left))
            break
        hypothesis = tried[best]
        found = Found(cause=hypothesis.cause, name=hypothesis.name, before=left, left=gaps[best])
        causes.append(found)
        now, left = hypothesis.assumption, gaps[best]
    return Diagnosis(
        evidence=evidence,
        tokens=len(sampler_T),
        transforms=transforms,
        above=above,
        rows=rows,
        causes=causes,
        left=left,
        logged=logged,
    )


def _when_learnt(evidence: Evidence, of: Recomputer, now: Assumption, logged: Gap | None) -> Row | None:
    """The gap when the step learnt from the samples, where its weights were other ones by then."""
    if evidence.trained_at is not None and evidence.trained_at != evidence.version:
        gap = Gap.between(of.trainer_T(replace(now, version=evidence.trained_at)), of.sampler_T)
        return Row(name=f"weights of version {evidence.trained_at}, which learnt from them", gap=gap)
    if evidence.trained_at is None and evidence.stage.config.max_staleness and logged is not None:
        return Row(name=f"as the run logged it in step {evidence.step}, for all samples", gap=logged)
    return None


def _errs_alike(hypothesis: Hypothesis, now: Assumption, of: Recomputer) -> bool:
    """Whether a computation in lower precision errs as much as the sampler does, and in the same places.

    Two engines in the same low precision round differently, so that one does not repeat the other; but the errors that
    come from rounding the weights are the same.
    """
    if hypothesis.cause is not Cause.DTYPE or hypothesis.assumption.arithmetic.dtype is None:
        return False
    trainer_T = of.trainer_T(now)
    rounded_T, seen_T = of.trainer_T(hypothesis.assumption) - trainer_T, of.sampler_T - trainer_T
    if not (rounded_T.any() and seen_T.any()):
        return False
    share = float(rounded_T.abs().mean() / seen_T.abs().mean())
    return 0.5 <= share <= 2 and float(torch.corrcoef(torch.stack([rounded_T, seen_T]))[0, 1]) >= ALIKE


def _weights(folder: RunFolder, start: Path) -> tuple[dict[int, Path], dict[int, int]]:
    """Folders by version of the weights, and the version that each step started from, as far as checkpoints tell."""
    weights, starts = {0: start}, {1: 0}
    for step in checkpoint.steps(folder.checkpoints):
        found = checkpoint.read(folder.checkpoints, step)
        version = int(found.state["progress"]["version"])
        weights[version] = found.folder
        starts[step + 1] = version
    return weights, starts


def _evidence(
    experiment: settings.Experiment, folder: RunFolder, weights: Mapping[int, Path], starts: Mapping[int, int]
) -> Evidence:
    """Samples of the newest step that has any of a version that is still there."""
    stages = {stage.name: stage for stage in experiment.stages if isinstance(stage.config, online.Config)}
    usable: dict[tuple[int, int], list[Record]] = {}
    for record in read_lines(folder.samples):
        if record["stage"] not in stages or not record["tokens"] or JUDGES in record:
            continue
        for version in set(versions_of(record)) & weights.keys():
            usable.setdefault((record["step"], version), []).append(record)
    if not usable:
        problem = "has no sample of an online stage whose weights a checkpoint still holds"
        fix = "keep more checkpoints: checkpoints.keep=0 keeps all, checkpoints.every=1 writes one per step"
        raise RunFolderError(str(folder.path), problem, fix=fix)
    step, version = max(usable)
    # Those that one version sampled from end to end first.
    records = sorted(usable[step, version], key=lambda record: len(set(versions_of(record))))[:SAMPLES]
    stage = stages[str(records[0]["stage"])]
    trained_at = starts.get(step, None if stage.config.max_staleness else version)
    return Evidence(records=records, stage=stage, step=step, version=version, trained_at=trained_at)


def _logged(folder: RunFolder, step: int) -> Gap | None:
    """What a step's metrics say."""
    keys = ("training/rollout_logprobs_diff_mean", "training/rollout_logprobs_diff_max", "rollout_corr/k3_kl")
    for row in read_lines(folder.metrics):
        if row["step"] == step and all(key in row for key in keys):
            mean, largest, k3 = (float(row[key]) for key in keys)
            return Gap(mean=mean, largest=largest, k3=k3)
    return None


def _large(gap: Gap, above: float) -> bool:
    """Whether a gap is worth an explanation."""
    return gap.mean >= above or gap.k3 >= above / 10


def _shown(rows: Sequence[Row]) -> Iterator[Row]:
    """What is known, and of each cause what comes nearest."""
    for row in rows:
        rivals = [other.gap.mean for other in rows if row.cause is not None and other.cause == row.cause]
        if sum(gap < row.gap.mean for gap in rivals) < SHOWN:
            yield row


def _style(row: Row, result: Diagnosis) -> str:
    return "bold" if any((row.gap, row.cause) == (found.left, found.cause) for found in result.causes) else ""


def _explained(found: Found, result: Diagnosis) -> str:
    left = f"leaves {found.left.mean:.2g} of a mean gap of {found.before.mean:.2g}"
    match found.cause:
        case Cause.TOKENIZER:
            return f"the sampler did not see the tokens of the record: taking {found.name} {left}"
        case Cause.STALE if found.crossed:
            return f"the samples come from weights that had moved on by the time of their update: their own {left}"
        case Cause.STALE:
            claimed = result.evidence.version
            return f"the sampler says version {claimed} but does not have it: taking {found.name} {left}"
        case Cause.TRANSFORMS:
            return f"the sampler's log-probs are those of other transforms than the config's: {found.name} {left}"
        case Cause.DTYPE if found.left == found.before:
            return f"computing in {found.name} errs as much as the sampler, and on the same tokens"
        case Cause.DTYPE:
            return f"rounding: {found.name} {left}"
        case Cause.KERNEL:
            return (
                f"a mean gap of {found.left.mean:.2g} that neither tokens, versions, transforms nor rounding explain:"
                " the sampler does other arithmetic with the same numbers"
            )


def _fix(found: Found, result: Diagnosis) -> str:
    match found.cause:
        case Cause.TOKENIZER:
            return "send token ids to the engine, not text, and give it the tokenizer and chat template of model.path"
        case Cause.STALE if found.crossed:
            name, staleness = result.evidence.stage.name, result.evidence.stage.config.max_staleness
            return (
                f"none while rollout_corr/rollout_is_eff_sample_size stays near 1, since the loss weighs it; else lower"
                f" {name}.max_staleness ({staleness}) or the learning rate"
            )
        case Cause.STALE:
            return "weights do not reach the engine: look at its load_weights, and whether sync and resume both ended"
        case Cause.TRANSFORMS:
            own = spoken(result.transforms)
            return f"make sampling.* ({own}) what the engine applies, and have it report log-probs after its transforms"
        case Cause.DTYPE:
            return (
                "give engine and trainer the same precision (model.dtype, learner.optimizer.precision, the engine's own"
                " keys), or keep loss.correction.tis_cap on and watch rollout_corr/rollout_is_eff_sample_size"
            )
        case Cause.KERNEL:
            return (
                "try the engine's other attention backend, eager mode or float32, one at a time, and diagnose again;"
                " until then keep loss.correction.tis_cap on"
            )
