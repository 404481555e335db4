"""A metric sink for TensorBoard that is more than scalars: overview layout, hparams, histograms and sample text.

The loops write every step's values here. The first page to open is Custom Scalars, where the layout of `overview`
shows what decides whether a run is healthy; its names follow verl, so that existing dashboards keep working.

A killed run writes again from its last checkpoint on: `purge_step` hides what an earlier process wrote from that step
on. One sink keeps one event file, since TensorBoard stops reading a file of a folder once a newer one has data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from rlhf.core.config import flatten

Charts = dict[str, list[str | list[str]]]
"""Chart title to `[kind, tags]`, in the form that `SummaryWriter.add_custom_scalars` takes."""


class TensorBoard:
    """Implements `rlhf.core.protocols.Sink`.

    Args:
        folder: where the event file goes, usually `runs/<name>/tb`.
        tasks: held-out tasks, each of which gets an accuracy chart with its interval as margin.
        purge_step: the first step that this process writes again after a resume; None for a fresh run.
    """

    def __init__(self, folder: Path, *, tasks: Sequence[str] = (), purge_step: int | None = None) -> None:
        self._tasks = tuple(tasks)
        self._writer = SummaryWriter(log_dir=str(folder), purge_step=purge_step, flush_secs=20)
        self._writer.add_custom_scalars(overview(tasks))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def write_histogram(self, step: int, tag: str, values: Sequence[float]) -> None:
        """Distribution of one step's rewards, lengths or advantages; values that are not finite have no place in it."""
        finite = [v for v in values if math.isfinite(v)]
        if finite:
            self._writer.add_histogram(tag, np.asarray(finite, dtype=np.float64), step)

    def write_text(self, step: int, tag: str, text: str) -> None:
        """Shown verbatim: as a Markdown code block, so that model output is not rendered."""
        self._writer.add_text(tag, "\n".join(f"    {line}" for line in text.splitlines()), step)

    def write_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Distributions of a step's rewards, lengths and advantages, and one of its samples in full.

        Args:
            rows: of `samples.jsonl`, all of this step.
        """
        for tag in ("value", "length", "advantage"):
            self.write_histogram(step, f"samples/{tag}", [row[tag] for row in rows if row[tag] is not None])
        shown = rows[0]
        verdict = f"{shown['verdict']} ({shown['reason']}), reward {shown['value']}, gold {shown['gold']}"
        self.write_text(step, "samples/first", f"{shown['prompt']}\n{shown['text']}\n\n{verdict}")

    def write_hparams(self, config: Mapping[str, Any]) -> None:
        """The resolved config, for the HParams page, with the metrics by which runs are compared there."""
        compared = ["critic/score/mean", "response_length/mean"]
        compared += [f"val-core/{task}/sampled_accuracy/mean" for task in self._tasks]
        flat = {key: _hparam(value) for key, value in flatten(config).items()}
        writer = self._writer.file_writer
        assert writer is not None
        for summary in hparams(flat, dict.fromkeys(compared, 0.0)):
            writer.add_summary(summary)

    def close(self) -> None:
        self._writer.close()


def overview(tasks: Sequence[str]) -> dict[str, Charts]:
    """The custom-scalar layout: what to look at first, in this order. Lines name tags by regular expression."""
    accuracy: Charts = {
        f"Held-out accuracy: {task}": [
            "Margin",
            [f"val-core/{task}/sampled_accuracy/{bound}" for bound in ("mean", "low", "high")],
        ]
        for task in tasks
    }
    learning: Charts = {
        "Train reward": ["Multiline", ["^critic/score/mean$", "^critic/rewards/mean$"]],
        **accuracy,
        "Response length": ["Multiline", ["^response_length/(mean|max)$"]],
        "Truncated share": ["Multiline", ["^response_length/clip_ratio$"]],
    }
    preferences: Charts = {
        "Accuracy of pairs": ["Multiline", ["rewards/accuracies$"]],
        "Margin of rewards": ["Multiline", ["rewards/margins$"]],
        "Drift from the reference": ["Multiline", ["logps/(chosen|rejected)_drift$"]],
    }
    health: Charts = {
        "Entropy": ["Multiline", ["^actor/entropy$"]],
        "Sampler-trainer KL gap": ["Multiline", ["^rollout_corr/(kl|k3_kl)$"]],
        "Effective sample size": ["Multiline", ["^rollout_corr/rollout_is_eff_sample_size$"]],
        "Staleness": ["Multiline", ["^staleness/(mean|max)$"]],
        "Gradient norm": ["Multiline", ["^actor/grad_norm$"]],
        "Policy shift per update": ["Multiline", ["^actor/(ppo_kl|pg_clipfrac)$"]],
        "Verdicts that are not judgements": ["Multiline", ["^verdict/(unparsable|timeout|crash)$"]],
    }
    speed: Charts = {
        "Seconds per phase": ["Multiline", ["^timing_s/.*"]],
        "Who waits: training, finished batches": ["Multiline", ["^(timing_s/wait_rollout|perf/collect_s/wait)$"]],
        "Tokens per second": ["Multiline", ["^perf/throughput$"]],
    }
    return {
        "Overview: learning": learning,
        "Overview: preferences": preferences,
        "Overview: health": health,
        "Overview: speed": speed,
    }


def _hparam(value: object) -> str | int | float | bool:
    return value if isinstance(value, (str, int, float, bool)) else str(value)
