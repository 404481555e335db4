"""What to look at in a run: simple rules, each with the figure it saw and the limit it compares with.

The HTML page shows every rule, raised or not, so that "nothing found" can be checked. Most rules look at the last
fifth of the steps (`recent`), because a run is judged by where it ended up. Limits are rules of thumb, not truths;
their advice says where to look, not what is wrong. A rule without data says so instead of passing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from rlhf.core.types import Verdict
from rlhf.report.record import Run
from rlhf.report.stats import Change

T = TypeVar("T")


class Level(StrEnum):
    """How a rule came out, worst first."""

    BAD = "bad"
    WARN = "warn"
    OK = "ok"
    NO_DATA = "no data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule applied to one run. `advice` is shown when the level is warn or bad."""

    rule: str
    level: Level
    figure: str
    limit: str
    advice: str


def findings(run: Run) -> list[Finding]:
    """All rules, the raised ones first."""
    found = [rule(run) for rule in RULES]
    found += [_kept(task, change) for task, change in (run.summary.others if run.summary else {}).items()]
    return sorted(found, key=lambda finding: list(Level).index(finding.level))


def recent(values: Sequence[T]) -> Sequence[T]:
    """The last fifth, at least five values."""
    return values[-max(5, len(values) // 5) :]


def early(values: Sequence[T]) -> Sequence[T]:
    """The first tenth, at least three values."""
    return values[: max(3, len(values) // 10)]


def _above(rule: str, value: float | None, *, warn: float, bad: float, show: str, unit: str, advice: str) -> Finding:
    """A figure that should stay below its limits."""
    limit = f"warn above {warn:{show}}, bad above {bad:{show}}"
    if value is None:
        return Finding(rule=rule, level=Level.NO_DATA, figure="not recorded", limit=limit, advice="")
    level = Level.BAD if value > bad else Level.WARN if value > warn else Level.OK
    return Finding(rule=rule, level=level, figure=f"{value:{show}} {unit}", limit=limit, advice=advice)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _verdict_share(run: Run, wanted: Sequence[Verdict], steps: Sequence[int]) -> float | None:
    counts = {verdict: run.total(f"verdict/{verdict}", steps) for verdict in Verdict}
    total = sum(counts.values())
    return sum(counts[verdict] for verdict in wanted) / total if total else None


def _not_finite(run: Run) -> Finding:
    worst = sorted(run.not_finite.items(), key=lambda item: item[1])
    figure = ", ".join(f"{key} at step {step}" for key, step in worst[:4]) or "none"
    level = Level.BAD if worst else Level.OK if run.series else Level.NO_DATA
    advice = "The first of these is where numbers broke; lower the learning rate or look at that step's samples."
    return Finding(rule="Values that are nan or infinite", level=level, figure=figure, limit="none", advice=advice)


def _gain(run: Run) -> Finding:
    rule, limit = "Held-out accuracy against the start", "bad when lower, warn when the intervals overlap"
    base, final = (run.summary.base, run.summary.final) if run.summary else (None, None)
    if base is None or final is None:
        return Finding(rule=rule, level=Level.NO_DATA, figure="no summary yet", limit=limit, advice="")
    figure = f"{100 * (final.mean - base.mean):+.1f} points" + (f" on {run.tasks[0]}" if len(run.tasks) > 1 else "")
    if base.overlaps(final):
        level = Level.WARN
        advice = "The change is within what the choice of held-out prompts explains; evaluate on more of them."
    else:
        level = Level.OK if final.mean > base.mean else Level.BAD
        advice = "Training made the model worse at the held-out task; compare reward and accuracy curves."
    return Finding(rule=rule, level=level, figure=figure, limit=limit, advice=advice)


def _kept(task: str, change: Change) -> Finding:
    """Of a task beside the primary: what it may have lost."""
    rule, limit = f"Held-out accuracy of {task}", "bad when lower and the intervals do not overlap"
    if change.before is None or change.after is None:
        return Finding(rule=rule, level=Level.NO_DATA, figure="not measured", limit=limit, advice="")
    moved = change.after.mean - change.before.mean
    level = Level.BAD if moved < 0 and not change.before.overlaps(change.after) else Level.OK
    advice = "The last stage cost this task: hold the policy closer to the reference, or train on the task as well."
    return Finding(rule=rule, level=level, figure=f"{100 * moved:+.1f} points", limit=limit, advice=advice)


def _reward_without_accuracy(run: Run) -> Finding:
    rule, limit = "Reward rises while accuracy does not", "warn at reward +0.1 or more with accuracy +0 or less"
    rewards = run.last_stage_values("critic/score/mean")
    points = [e.points for e in run.evaluations() if e.what == "sampled_accuracy" and len(e.points) > 1]
    if len(rewards) < 8 or not points:
        return Finding(rule=rule, level=Level.NO_DATA, figure="too few values", limit=limit, advice="")
    reward = statistics.fmean(recent(rewards)) - statistics.fmean(early(rewards))
    accuracy = max(p[-1].mean - p[0].mean for p in points)  # a task that is not trained on may well fall
    level = Level.WARN if reward >= 0.1 and accuracy <= 0 else Level.OK
    advice = "The policy may be gaming a reward part; read the best-rewarded samples below."
    return Finding(
        rule=rule, level=level, figure=f"reward {reward:+.2f}, accuracy {accuracy:+.2f}", limit=limit, advice=advice
    )


def _truncation(run: Run) -> Finding:
    return _above(
        "Answers cut at the token limit",
        _mean(recent(run.values("response_length/clip_ratio"))),
        warn=0.1,
        bad=0.3,
        show=".1%",
        unit="of recent samples",
        advice="A cut answer cannot be right: raise the token limit, or shape length, before trusting the reward.",
    )


def _verifier_failures(run: Run) -> Finding:
    return _above(
        "Verifier timeouts and crashes",
        _verdict_share(run, (Verdict.TIMEOUT, Verdict.CRASH), run.steps("verdict/")),
        warn=0.0,
        bad=0.01,
        show=".2%",
        unit="of all samples",
        advice="These samples were left out of the update. Filter the samples below by verdict to see what did it.",
    )


def _ungradable(run: Run) -> Finding:
    return _above(
        "Answers or golds that cannot be read",
        _verdict_share(run, (Verdict.UNPARSABLE, Verdict.TIMEOUT, Verdict.CRASH), recent(run.steps("verdict/"))),
        warn=0.02,
        bad=0.1,
        show=".1%",
        unit="of recent samples",
        advice="Look at the reasons of the unparsable samples: an odd gold answer, or a form the verifier lacks.",
    )


def _no_answer(run: Run) -> Finding:
    return _above(
        "Completions without a final answer",
        _verdict_share(run, (Verdict.NO_ANSWER,), recent(run.steps("verdict/"))),
        warn=0.1,
        bad=0.4,
        show=".1%",
        unit="of recent samples",
        advice="The prompt may not ask for the form that the verifier reads, or answers are cut before they end.",
    )


def _entropy(run: Run) -> Finding:
    rule, limit = "Entropy left", "warn below 20%, bad below 5% of its start"
    values = run.last_stage_values("actor/entropy")
    if len(values) < 8 or statistics.fmean(early(values)) <= 0:
        return Finding(rule=rule, level=Level.NO_DATA, figure="too few values", limit=limit, advice="")
    start, end = statistics.fmean(early(values)), statistics.fmean(recent(values))
    left = end / start
    level = Level.BAD if left < 0.05 else Level.WARN if left < 0.2 else Level.OK
    figure = f"{left:.0%} ({start:.3g} to {end:.3g} nats)"
    advice = "Samples of one prompt become alike and carry no signal: raise clip_high, or lower the learning rate."
    return Finding(rule=rule, level=level, figure=figure, limit=limit, advice=advice)


def _mismatch(run: Run) -> Finding:
    return _above(
        "Sampler and trainer disagree (k3 KL)",
        _mean(recent(run.values("rollout_corr/k3_kl"))),
        warn=0.01,
        bad=0.1,
        show=".2g",
        unit="nats per token",
        advice="`rlhf diagnose` on this run says why: tokens, stale weights, sampling transforms, dtype or kernels.",
    )


def _weighed_away(run: Run) -> Finding:
    mean = _mean(recent(run.values("rollout_corr/rollout_is_eff_sample_size")))
    return _above(
        "Tokens lost to importance weights",
        1 - mean if mean is not None else None,
        warn=0.1,
        bad=0.5,
        show=".1%",
        unit="of recent tokens, as the effective sample size has it",
        advice="Samples are too far from the policy that learns: lower max_staleness, or see `rlhf diagnose`.",
    )


def _policy_shift(run: Run) -> Finding:
    return _above(
        "Clipped tokens per update",
        _mean(recent(run.values("actor/pg_clipfrac"))),
        warn=0.2,
        bad=0.5,
        show=".1%",
        unit="of recent tokens",
        advice="Updates move the policy too far for the clip range: fewer epochs, or a lower learning rate.",
    )


def _gradient_spike(run: Run) -> Finding:
    values = run.last_stage_values("actor/grad_norm")
    return _above(
        "Largest gradient norm",
        max(values) / max(statistics.median(values), 1e-12) if len(values) >= 8 else None,
        warn=10.0,
        bad=100.0,
        show=".3g",
        unit="times the median",
        advice="Look at the step of the spike in the curve; clipping the gradient norm bounds what it can do.",
    )


def _no_signal(run: Run) -> Finding:
    steps = recent(run.steps("batch/samples"))
    samples, skipped = run.total("batch/samples", steps), run.total("batch/skipped_no_signal", steps)
    return _above(
        "Samples without a learning signal",
        skipped / samples if samples else None,
        warn=0.5,
        bad=0.9,
        show=".1%",
        unit="of recent samples",
        advice="All samples of most prompts get the same reward: choose prompts of middling difficulty.",
    )


RULES: tuple[Callable[[Run], Finding], ...] = (
    _not_finite,
    _gain,
    _reward_without_accuracy,
    _truncation,
    _verifier_failures,
    _ungradable,
    _no_answer,
    _entropy,
    _mismatch,
    _weighed_away,
    _policy_shift,
    _gradient_spike,
    _no_signal,
)
