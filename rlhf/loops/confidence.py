"""What says how sure an answer is, read off scored groups: of each sample, or of all samples of a prompt at once.

    stated      the confidence that the text states, where a `refusal` reward reads it
    sequence    geometric mean of the probabilities of its tokens under the sampler (length-normalised sequence
                probability, Malinin and Gales 2021, arXiv 2002.07650)
    vote        of the answer that most samples of the prompt give: the share of the samples that give it
    mean, max   of the answer with most probability, samples weighing what `sequence` gives them
                (`rlhf.report.ensemble`)

The last three are self-ensembles: one answer per prompt. Called by `rlhf evaluate --calibrate` and by its pictures.
Refusals and what could not be graded are no answers; a sample without an answer that a reward could read counts in the
share of a vote and has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlhf.core.outcomes import reported, verified
from rlhf.core.types import Group, RewardOut, Trajectory, Verdict
from rlhf.report import ensemble
from rlhf.report.ensemble import RULES


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Confidences of one kind, with what came true; equally long."""

    confidence: list[float]
    right: list[bool]
    prompt: list[int]
    """Place of each one's prompt."""


def kinds(groups: Sequence[Group]) -> dict[str, Answers]:
    """By the kind of confidence; without those that no answer has."""
    found = {"stated": list(_stated(groups)), "sequence": list(_sequence(groups))}
    found |= {rule: list(_ensembles(groups, rule)) for rule in RULES}
    return {
        name: Answers(confidence=[p for p, _, _ in each], right=[y for _, y, _ in each], prompt=[i for _, _, i in each])
        for name, each in found.items()
        if each
    }


Answer = tuple[float, bool, int]
"""Confidence, whether the answer is right, and the place of its prompt."""


def voted(out: RewardOut) -> str | None:
    """What a graded sample votes for: its answer, spaces made equal; None where no reward read one."""
    return " ".join(out.extracted.split()) if out.extracted is not None else None


def _stated(groups: Sequence[Group]) -> Iterator[Answer]:
    for place, _, out in _answers(groups):
        if (p := reported(out, "confidence")) is not None:
            yield p, out.verdict is Verdict.CORRECT, place


def _sequence(groups: Sequence[Group]) -> Iterator[Answer]:
    for place, trajectory, out in _answers(groups):
        if trajectory.logprobs:
            yield _probability(trajectory), out.verdict is Verdict.CORRECT, place


def _ensembles(groups: Sequence[Group], rule: str) -> Iterator[Answer]:
    for place, group in enumerate(groups):
        members: list[dict[str, float]] = []
        right: dict[str, bool] = {}
        for _, trajectory, out in _answers([group]):
            answer = voted(out)
            members.append({} if answer is None else {answer: _probability(trajectory)})
            if answer is not None:
                right.setdefault(answer, out.verdict is Verdict.CORRECT)
        decided = ensemble.decided(ensemble.combined(members, rule=rule)) if len(members) > 1 else None
        if decided is not None:
            answer, p = decided
            yield min(1.0, p), right[answer], place


def _answers(groups: Sequence[Group]) -> Iterator[tuple[int, Trajectory, RewardOut]]:
    for place, group in enumerate(groups):
        for trajectory, out in zip(group.trajectories, group.rewards, strict=True):
            if verified(out) and out.verdict is not Verdict.REFUSED and not reported(out, "refused"):
                yield place, trajectory, out


def _probability(trajectory: Trajectory) -> float:
    logprobs = trajectory.logprobs
    return min(1.0, math.exp(math.fsum(logprobs) / len(logprobs))) if logprobs else 0.0
