"""The chapters of the HTML page that hold curves: which metrics are drawn together, and the tables beside them.

Metric names are those that the loops write (verl's names). A chart whose metrics a run never wrote is left out; a
section without charts and tables is left out too.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from rlhf.core.types import Verdict
from rlhf.report import held_out
from rlhf.report.curves import SERIES, Chart, Key, Line, accuracy_chart, line_chart, stacked_chart
from rlhf.report.findings import early, recent
from rlhf.report.parts import Cell, Section, Table, drawn, lines
from rlhf.report.record import Run
from rlhf.report.units import duration

MANY = 40
"""Rows of a table of reward parts, at most."""
PHASES = (("gen", "c0"), ("reward", "c1"), ("update_actor", "c2"), ("sync", "c3"), ("eval", "c5"), ("checkpoint", "c6"))
"""Phases with a colour of their own; the remaining colours go to whatever else a run timed."""
_FIRST_ERROR = re.compile(r"val-core/[^/]+/(f1|erroneous|correct)")
"""How well a model of steps finds the first wrong one."""


HONESTY = (
    "coverage",
    "answered_accuracy",
    "wrong_rate",
    "known_accuracy",
    "over_refusal",
    "refusal_recall",
    "refusal_precision",
    "untried",
    "average_precision",
    "calibration_error",
    "brier",
    "auroc",
    "accuracy_at_50%",
    "accuracy_at_80%",
)
"""Measures of refusals and stated confidence, in the order of their table."""


def sections(run: Run) -> list[Section]:
    """Everything drawn, in reading order."""
    made = (_learning, _held_out, _lessons, _preferences, _honesty, _rewards, _verdicts, _mismatch, _time)
    every = [section(run) for section in made]
    return [section for section in every if section.charts or section.table]


def _learning(run: Run) -> Section:
    charts = [
        accuracy_chart(
            run, title="Held-out accuracy", caption="Mean over prompts; bars are 95% bootstrap intervals over prompts."
        ),
        lines(run, "Training reward", "Mean over the step's samples.", {"score": "critic/score/mean"} | _shaped(run)),
        lines(run, "Cross-entropy", "Nats per target token of supervised stages.", {"loss": "train/ce_loss"}),
        lines(
            run,
            "Response length",
            "Tokens per answer, the end token included.",
            {"mean": "response_length/mean", "max": "response_length/max", "min": "response_length/min"},
        ),
        lines(
            run,
            "Answers cut at the token limit",
            "Share of the step's samples.",
            {"truncated": "response_length/clip_ratio"},
            percent=True,
        ),
        lines(run, "Entropy", "Nats per token, of the trainer's policy.", {"entropy": "actor/entropy"}),
        lines(run, "Gradient norm", "Before clipping.", {"gradient norm": "actor/grad_norm"}, log=True),
        lines(run, "Policy-gradient loss", "As minimised, per step.", {"loss": "actor/pg_loss"}),
        lines(
            run,
            "Policy shift",
            "Approximate KL from the policy before the step's updates, and to the reference where there is one.",
            {"update": "actor/ppo_kl", "reference": "actor/kl_loss"},
        ),
        lines(run, "KL in the reward", "To the reference, in nats per answer.", {"mean": "critic/kl/mean"}),
        lines(run, "Clipped tokens", "Share of tokens.", {"clipped": "actor/pg_clipfrac"}, percent=True),
        lines(
            run,
            "Critic",
            "What it expects of a token on average, and what came.",
            {"value": "critic/values/mean", "return": "critic/returns/mean"},
        ),
        lines(
            run,
            "Explained variance",
            "Share of the variance of the returns that the critic's values explain; below 0 they mislead.",
            {"explained": "critic/vf_explained_var"},
        ),
        line_chart(
            run,
            title="Learning rate",
            caption="Of the optimizer step.",
            lines=[Line(key="actor/lr", label="rate", smoothed=False)],
        ),
    ]
    intro = "By global step. Faint lines are raw values, strong ones their moving average; shading separates stages."
    return Section(id="learning", title="Learning", intro=intro, charts=drawn(charts))


def _held_out(run: Run) -> Section:
    return held_out.section(run, elsewhere=HONESTY)


def _lessons(run: Run) -> Section:
    charts = [
        lines(
            run,
            "Distance from the teacher",
            "KL per token, in nats: over the teacher's likeliest tokens, or on samples of one's own.",
            {"likeliest tokens": "distill/kl", "own samples": "teacher/reverse_kl"},
        ),
        lines(
            run,
            "Answers to a question",
            "How many there are, and over how many the loss spreads its weight.",
            {"there are": "mml/answers", "weighed": "mml/effective_answers"},
        ),
        lines(
            run,
            "Verdicts on own answers",
            "Right ones of right and of wrong answers, on average: half of them for one who does not look.",
            {"balanced accuracy": "verify/balanced_accuracy", "none given": "verify/no_verdict"},
            percent=True,
        ),
        lines(run, "Process reward model", "Cross-entropy per step of a solution, in nats.", {"loss": "prm/loss"}),
        lines(
            run,
            "First wrong step",
            "Held-out solutions whose first wrong step is found, right ones that are found right, and F1 of both.",
            {key.rpartition("/")[2]: key for key in run.series if _FIRST_ERROR.fullmatch(key)},
            percent=True,
        ),
    ]
    intro = "Where a stage learns from a teacher or from several answers to a question, or learns to judge."
    return Section(id="lessons", title="Teachers and judges", intro=intro, charts=drawn(charts))


def _preferences(run: Run) -> Section:
    def chart(
        title: str, caption: str, keys: dict[str, str], held_out: str = "", *, percent: bool = False
    ) -> Chart | None:
        measured = [key for key in run.series if key.startswith("val-core/") and key.endswith(f"/{held_out}")]
        return lines(run, title, caption, keys | {f"held-out, {k.split('/')[1]}": k for k in measured}, percent=percent)

    loss = {"training": "train/preference_loss", "likelihood": "train/nll_loss"}
    rewards = {name: f"rewards/{name}" for name in ("chosen", "rejected", "margins")}
    drift = {name: f"logps/{name}_drift" for name in ("chosen", "rejected")}
    which, share = "Share whose chosen answer has the larger reward.", {"training": "rewards/accuracies"}
    where = "Nats per answer; where both fall, probability goes to answers that nobody asked for."
    charts = [
        chart("Preference loss", "Per pair, or per judged answer.", loss, "preference_loss"),
        chart("Accuracy of pairs", which, share, "rewards/accuracies", percent=True),
        chart("Rewards of answers", "Implicit ones of a policy, or scores of a reward model; on average.", rewards),
        chart("Drift from the reference", where, drift, "logps/chosen_drift"),
    ]
    intro = "What the policy, or a reward model, makes of answers of which it is known which are better."
    return Section(id="preferences", title="Preferences", intro=intro, charts=drawn(charts))


def _honesty(run: Run) -> Section:
    def chart(title: str, caption: str, *names: str) -> Chart | None:
        several = len(run.tasks) > 1
        keys = {
            (f"{task}: " if several else "") + _words(name): f"val-aux/{task}/{name}/mean"
            for task in run.tasks
            for name in names
        }
        return lines(run, title, caption, keys, percent=True)

    charts = [
        chart(
            "What it answers",
            "Held-out: answers among all samples, right ones among answers, wrong ones among all samples.",
            *("coverage", "answered_accuracy", "wrong_rate"),
        ),
        chart(
            "Whether it refuses the right questions",
            "Refused among samples of known and of unknown questions, and unknown ones among what was refused.",
            *("over_refusal", "refusal_recall", "refusal_precision"),
        ),
        chart(
            "Stated confidence",
            "How it ranks right answers first, how far it is from their share, and its mean squared error.",
            *("average_precision", "calibration_error", "brier"),
        ),
    ]
    rows = [
        (Cell(text=f"{task}: {_words(name)}"), *map(_share, _bounds(run, f"val-aux/{task}/{name}")))
        for task in run.tasks
        for name in HONESTY
        if run.values(f"val-aux/{task}/{name}/mean")
    ]
    table = Table(columns=("held-out, last evaluation", "mean", "low", "high"), rows=tuple(rows)) if rows else None
    intro = "Whether the model declines what it does not know, and answers what it does; 95% intervals over prompts."
    return Section(id="honesty", title="Knowing what it knows", intro=intro, charts=drawn(charts), table=table)


def _rewards(run: Run) -> Section:
    names = run.names("reward/", "/mean")
    intro = "Each part of the reward before its weight. A part that moves alone is what the policy learnt to please."
    chart = line_chart(
        run,
        title="Reward parts",
        caption="Mean over the step's samples." + (f" First {len(SERIES)} parts." if len(names) > len(SERIES) else ""),
        lines=[Line(key=f"reward/{name}/mean", label=name) for name in names[: len(SERIES)]],
    )
    rows = [
        (
            Cell(text=name, colour=SERIES[i] if i < len(SERIES) else ""),
            *_movement(run.values(f"reward/{name}/mean")),
        )
        for i, name in enumerate(names[:MANY])
    ]
    table = Table(columns=("part", "first steps", "last steps", "change"), rows=tuple(rows)) if rows else None
    return Section(id="rewards", title="Reward parts", intro=intro, charts=drawn([chart]), table=table)


def _verdicts(run: Run) -> Section:
    steps = run.steps("verdict/")
    windows = {"share": steps, "first steps": early(steps), "last steps": recent(steps)}
    counts = {verdict: [run.total(f"verdict/{verdict}", window) for window in windows.values()] for verdict in Verdict}
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    chart = stacked_chart(
        run,
        title="Verdicts",
        caption="Share of each step's samples. Only correct and wrong are judgements of an answer that was read.",
        keys=[(f"verdict/{v}", Key(label=_words(v), colour=v)) for v in Verdict],
        share=True,
    )
    rows = [
        (
            Cell(text=_words(verdict), colour=verdict),
            Cell(text=f"{count[0]:,.0f}"),
            Cell(text=_percent(count[0], totals[0]), share=count[0] / totals[0]),
            *(Cell(text=_percent(part, total)) for part, total in zip(count[1:], totals[1:], strict=True)),
        )
        for verdict, count in counts.items()
        if count[0]
    ]
    table = Table(columns=("verdict", "samples", *windows), rows=tuple(rows))
    return Section(
        id="verdicts",
        title="Verdicts",
        intro="What the verifiers found. A sample that could not be graded is left out of the update.",
        charts=drawn([chart]),
        table=table if rows else None,
    )


def _mismatch(run: Run) -> Section:
    charts = [
        lines(
            run,
            "Sampler-trainer KL",
            "Estimated on sampled tokens: k1 (signed) and k3 (never negative). Zero means the same policy.",
            {"k1": "rollout_corr/kl", "k3": "rollout_corr/k3_kl"},
            log=True,
        ),
        lines(
            run,
            "Log-prob difference",
            "Absolute, per token.",
            {"mean": "training/rollout_logprobs_diff_mean", "max": "training/rollout_logprobs_diff_max"},
            log=True,
        ),
        lines(
            run,
            "Importance weight",
            "Mean of trainer over sampler probability, after truncation; 1 means no correction.",
            {"weight": "rollout_corr/rollout_is_mean"},
        ),
        lines(
            run,
            "What the weights leave",
            "Effective sample size, as a share of the tokens, the share of tokens whose weight was truncated, and the"
            " shares that each rule leaves out.",
            {
                "effective": "rollout_corr/rollout_is_eff_sample_size",
                "truncated": "rollout_corr/is_truncated_fraction",
                "by token": "rollout_corr/token_masked_fraction",
                "by answer": "rollout_corr/sequence_masked_fraction",
                "by geometric mean": "rollout_corr/geometric_masked_fraction",
                "negative": "rollout_corr/negative_masked_fraction",
            },
            percent=True,
        ),
        lines(
            run,
            "Staleness",
            "Optimizer updates between the weights that sampled a token and those that learn from it.",
            {"mean": "staleness/mean", "max": "staleness/max"},
        ),
        lines(
            run,
            "Samples that crossed an update",
            "Share of samples whose tokens come from more than one version of the weights.",
            {"crossed": "staleness/crossed"},
            percent=True,
        ),
    ]
    intro = "How far the policy that sampled is from the one that is trained: numerics, sampling transforms, staleness."
    return Section(id="mismatch", title="Sampler against trainer", intro=intro, charts=drawn(charts))


def _time(run: Run) -> Section:
    phases = [name for name in run.names("timing_s/") if name != "step"]
    own = dict(PHASES)
    spare = [colour for colour in SERIES if colour not in own.values()]
    others = [name for name in phases if name not in own]
    colours = own | {name: spare[i % len(spare)] for i, name in enumerate(others)}
    ordered = [name for name, _ in PHASES if name in phases] + others
    sums = {name: sum(run.values(f"timing_s/{name}")) for name in ordered}
    known = sum(sums.values())
    total = max(sum(run.values("timing_s/step")), known)
    rows = [
        (
            Cell(text=name, colour=colours[name]),
            Cell(text=duration(seconds)),
            Cell(text=_percent(seconds, total), share=seconds / total if total else None),
            Cell(text=duration(statistics.fmean(run.values(f"timing_s/{name}")))),
        )
        for name, seconds in sums.items()
    ]
    if rows and total > known:
        rest = total - known
        rows.append(
            (
                Cell(text="other", colour="skipped"),
                Cell(text=duration(rest)),
                Cell(text=_percent(rest, total), share=rest / total),
                Cell(text=""),
            )
        )
    charts = [
        stacked_chart(
            run,
            title="Seconds per step",
            caption="Mean over neighbouring steps.",
            keys=[(f"timing_s/{name}", Key(label=name, colour=colours[name])) for name in ordered],
            share=False,
        ),
        lines(run, "Throughput", "Tokens per second of a whole step.", {"tokens/s": "perf/throughput"}),
        lines(
            run,
            "Who waits for whom",
            "Seconds that training waited for its batch, and that the batch had waited for training.",
            {"training": "timing_s/wait_rollout", "batch": "perf/collect_s/wait"},
        ),
        lines(
            run,
            "Collecting a batch, beside training",
            "Seconds of sampling and of grading; they overlap with the phases of other steps.",
            {"sampling": "perf/collect_s/gen", "grading": "perf/collect_s/reward"},
        ),
    ]
    table = Table(columns=("phase", "total", "share", "per call"), rows=tuple(rows)) if rows else None
    return Section(id="time", title="Where the time went", intro="", charts=drawn(charts), table=table)


def _shaped(run: Run) -> dict[str, str]:
    """The reward after penalties, where there are any: drawn over the score it would only hide it."""
    same = run.values("critic/score/mean") == run.values("critic/rewards/mean")
    return {} if same else {"after penalties": "critic/rewards/mean"}


def _movement(values: Sequence[float]) -> tuple[Cell, Cell, Cell]:
    first, last = statistics.fmean(early(values)), statistics.fmean(recent(values))
    return Cell(text=f"{first:.3f}"), Cell(text=f"{last:.3f}"), Cell(text=f"{last - first:+.3f}")


def _bounds(run: Run, prefix: str) -> list[float]:
    """The newest mean of a held-out measure, with its bounds."""
    return [run.values(f"{prefix}/{bound}")[-1] for bound in ("mean", "low", "high")]


def _share(value: float) -> Cell:
    return Cell(text=f"{value:.1%}")


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _words(name: str) -> str:
    return name.replace("_", " ")
