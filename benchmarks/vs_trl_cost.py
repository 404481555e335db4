"""Where the time of our online steps goes, and what share of the matmul peak it reaches. Used by `vs_trl.py`.

Model FLOPs are counted, not hardware FLOPs: two per weight and token forward, four backward, attention over the actual
context, the output head where a log-prob is needed; nothing for recomputation, padding, or samples that were skipped.
Kept are only steps after the first few.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.loops import settings

PHASES = {
    "gen": "generation",
    "reward": "reward",
    "adv": "advantages",
    "update_actor": "training",
    "sync": "weight sync",
    "log": "sample log",
}

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a model costs FLOPs."""

    layer_weights: int
    head_weights: int
    attention: int
    """FLOPs of one token with one token of context, forward, over all layers."""

    @classmethod
    def of(cls, folder: Path) -> Shape:
        """The Llama-shaped model in a folder, with as many key as query heads."""
        config = json.loads((folder / "config.json").read_text())
        hidden, layers = config["hidden_size"], config["num_hidden_layers"]
        assert config["num_key_value_heads"] == config["num_attention_heads"]
        return cls(
            layer_weights=layers * (4 * hidden**2 + 3 * hidden * config["intermediate_size"]),
            head_weights=hidden * config["vocab_size"],
            attention=4 * hidden * layers,
        )

    def forward(self, tokens: int, *, logits: int, before: int = 0) -> float:
        """FLOPs of `tokens` new tokens behind `before` known ones, with the head at `logits` of them."""
        context = tokens * before + tokens * (tokens + 1) / 2
        return 2 * (tokens * self.layer_weights + logits * self.head_weights) + self.attention * context


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Means per step."""

    seconds: dict[str, float]
    """By phase; `rest` is what is in none."""
    flops: dict[str, float]
    """Of the phases that run the model."""
    trained_share: float
    """Samples with signal."""

    @classmethod
    def of_run(cls, folder: Path, *, skip: int) -> Cost:
        """Read a run with one online stage, without its first `skip` steps."""
        run = RunFolder(folder)
        shape = Shape.of(Path(settings.read(run.config).settings.model.path or run.model))
        steps = [row for row in read_lines(run.metrics) if row["step"] > skip]
        samples = [row for row in read_lines(run.samples) if row["step"] > skip]
        trained = [row for row in samples if row["advantage"]]
        count = len(steps)
        return cls(
            seconds=phases(steps),
            flops={
                "gen": generation(samples, shape) / count,
                "update_actor": sum(training(row, shape) for row in trained) / count,
            },
            trained_share=len(trained) / len(samples),
        )

    def table(self, peak: float) -> str:
        """Markdown; `peak` in FLOP/s."""
        total = sum(self.seconds.values())
        lines = ["| our step | seconds | share | GFLOP/s | of the peak |", "|---|---|---|---|---|"]
        for phase, spent in self.seconds.items():
            flops = self.flops.get(phase)
            speed = f"{flops / spent / 1e9:.1f} | {flops / spent / peak:.1%}" if flops is not None else " | "
            lines.append(f"| {PHASES.get(phase, phase)} | {spent:.4f} | {spent / total:.1%} | {speed} |")
        flops = sum(self.flops.values())
        lines.append(f"| all | {total:.4f} | 100 % | {flops / total / 1e9:.1f} | {flops / total / peak:.1%} |")
        return "\n".join([*lines, f"\nSamples with signal, which are trained on: {self.trained_share:.0%}.\n"])


def mean_cost(costs: Sequence[Cost]) -> Cost:
    """Over several runs."""
    return Cost(
        seconds={phase: fmean(c.seconds[phase] for c in costs) for phase in costs[0].seconds},
        flops={phase: fmean(c.flops[phase] for c in costs) for phase in costs[0].flops},
        trained_share=fmean(c.trained_share for c in costs),
    )


def phases(steps: Sequence[Row]) -> dict[str, float]:
    """Mean seconds per step and phase, without evaluation and checkpoints."""
    out = {phase: fmean(row.get(f"timing_s/{phase}", 0.0) for row in steps) for phase in PHASES}
    aside = fmean(row.get("timing_s/eval", 0.0) + row.get("timing_s/checkpoint", 0.0) for row in steps)
    total = fmean(row["timing_s/step"] for row in steps) - aside
    return out | {"rest": total - sum(out.values())}


def generation(samples: Sequence[Row], shape: Shape) -> float:
    """FLOPs of sampling: every prompt once, every new token once."""
    prompts = {(row["step"], row["prompt_id"]): len(row["prompt_tokens"]) for row in samples}
    prefill = sum(shape.forward(length, logits=1) for length in prompts.values())
    decode = sum(shape.forward(r["length"], logits=r["length"], before=len(r["prompt_tokens"])) for r in samples)
    return prefill + decode


def training(row: Row, shape: Shape) -> float:
    """FLOPs of forward and backward over one sample."""
    return 3 * shape.forward(len(row["prompt_tokens"]) + row["length"], logits=row["length"])
