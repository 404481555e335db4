"""What an evaluation reads off scored groups: columns with a value per prompt, and shares over samples.

Called by `rlhf.loops.evaluate`, in training and by `rlhf evaluate` alike. Columns become means over prompts; None
stands where a prompt has no value, because fewer than k of its samples could be graded. Formulas:
`rlhf.report.repeated`.

Where a reward says which step of an answer is the first wrong one (`procedure`, `step_judge`, `structure` with steps):

    process/wrong_step       samples with a wrong step / samples that were looked at
    process/right_by_luck    right answers with a wrong step / right answers that were looked at: the share of "final
                             answer right, process wrong" of ProcessBench (Zheng et al. 2024, arXiv 2412.06559)
    process/first_error      mean place of the first wrong step, counted from 1, of the samples that have one
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rlhf.core.outcomes import FIRST_ERROR, NO_ERROR, reported, verified
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group, RewardOut, StopReason, Verdict
from rlhf.loops.confidence import voted
from rlhf.report.repeated import best_at_k, majority_at_k, pass_at_k, pass_hat_k
from rlhf.report.stats import Interval, ratio_interval

Column = list[float | None]
SHARES = ("process/wrong_step", "process/right_by_luck", "truncated")
"""Of what is measured of samples: what lies from 0 to 1 whatever is sampled."""


def accuracy(group: Group) -> float | None:
    """Share of right ones among the graded samples: avg@n."""
    right = _right(group)
    return sum(right) / len(right) if right else None


def repeated(groups: Sequence[Group], ks: Sequence[int]) -> dict[str, Column]:
    """pass@k, and for k above 1 pass^k, maj@k where rewards read an answer, and best@k of the reward."""
    out: dict[str, Column] = {f"pass@{k}": [_passing(group, k) for group in groups] for k in ks}
    votes = any(out.extracted is not None for group in groups for out in group.rewards)
    for k in ks:
        if k == 1:
            continue
        out[f"pass^{k}"] = [_all_right(group, k) for group in groups]
        if votes:
            out[f"maj@{k}"] = [_majority(group, k) for group in groups]
        out[f"best@{k}"] = [_best(group, k) for group in groups]
    return out


def parts(kind: str, groups: Sequence[Group], *, seed: int) -> dict[str, Interval]:
    """Each part of the rewards, as a mean over samples: what a reward reports of procedures, lengths, first errors."""
    names = dict.fromkeys(name for group in groups for out in group.rewards for name in out.breakdown)
    columns = {
        f"{kind}/{name}": [[v for out in g.rewards if (v := out.breakdown.get(name)) is not None] for g in groups]
        for name in names
        if name.rpartition("/")[2] != FIRST_ERROR
    }
    return _intervals(columns, seed=seed)


def process(groups: Sequence[Group], *, seed: int) -> dict[str, Interval]:
    """How often, and where, steps are wrong; empty where no reward looked."""
    looked = [[(out, e) for out in g.rewards if (e := reported(out, FIRST_ERROR)) is not None] for g in groups]
    columns = {
        "process/wrong_step": [[float(e != NO_ERROR) for _, e in found] for found in looked],
        "process/right_by_luck": [
            [float(e != NO_ERROR) for out, e in found if out.verdict == Verdict.CORRECT] for found in looked
        ],
        "process/first_error": [[e + 1 for _, e in found if e != NO_ERROR] for found in looked],
    }
    return _intervals(columns, seed=seed)


def lengths(groups: Sequence[Group], *, seed: int) -> dict[str, Interval]:
    """Tokens per sample, and the share of samples that the token budget cut."""
    columns = {
        "response_length": [[float(len(t.tokens)) for t in g.trajectories] for g in groups],
        "truncated": [[float(t.stop == StopReason.LENGTH) for t in g.trajectories] for g in groups],
    }
    return _intervals(columns, seed=seed)


def flat(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """`{name: interval}` as `name/mean`, `name/low` and `name/high`."""
    out: dict[str, float] = {}
    for name, found in intervals.items():
        out |= {f"{name}/mean": found.mean, f"{name}/low": found.low, f"{name}/high": found.high}
    return out


def _intervals(columns: Mapping[str, Sequence[Sequence[float]]], *, seed: int) -> dict[str, Interval]:
    """Means over all samples of all prompts, with bounds over prompts; without those that no sample has."""
    found = {
        name: ratio_interval(
            [math.fsum(values) for values in column],
            [len(values) for values in column],
            seed=derive_seed(seed, "bootstrap", name),
            share=name in SHARES,
        )
        for name, column in columns.items()
    }
    return {name: interval for name, interval in found.items() if interval is not None}


def _graded(group: Group) -> list[RewardOut]:
    return [out for out in group.rewards if verified(out)]


def _right(group: Group) -> list[bool]:
    return [out.verdict == Verdict.CORRECT for out in _graded(group)]


def _passing(group: Group, k: int) -> float | None:
    right = _right(group)
    return pass_at_k(len(right), num_correct=sum(right), k=k) if len(right) >= k else None


def _all_right(group: Group, k: int) -> float | None:
    right = _right(group)
    return pass_hat_k(len(right), num_correct=sum(right), k=k) if len(right) >= k else None


def _majority(group: Group, k: int) -> float | None:
    graded = _graded(group)
    if len(graded) < k:
        return None
    answers = [voted(out) for out in graded]
    return majority_at_k(answers, [float(out.verdict == Verdict.CORRECT) for out in graded], k=k)


def _best(group: Group, k: int) -> float | None:
    rewards = [out.value for out in group.rewards if out.value is not None]
    return best_at_k(rewards, k=k) if len(rewards) >= k else None
