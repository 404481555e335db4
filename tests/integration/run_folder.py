"""A realistic run folder: two stages of a run that learns, with everything that a report may find there."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

SFT, GRPO = 40, 160


def online_row(step: int, rng: random.Random) -> dict[str, Any]:
    """One step of a run that learns: reward and length rise, entropy falls, graders fail now and then."""
    t = step / GRPO
    correct = round(64 * (0.22 + 0.5 * t**0.7 + rng.gauss(0, 0.03)))
    no_answer = round(10 * (1 - t)) + rng.randrange(2)
    timeout = int(rng.random() < 0.08)
    gen, update = 1.6 + t + rng.random() / 4, 1.1 + rng.random() / 5
    reward, sync = 0.3 + rng.random() / 10, 0.08
    return {
        "step": SFT + step,
        "stage": "grpo",
        "critic/score/mean": correct / 64,
        "critic/rewards/mean": correct / 64 - 0.03,
        "reward/math/mean": correct / 64,
        "reward/format/mean": min(1.0, 0.6 + 0.5 * t),
        "reward/length/mean": -0.1 - 0.05 * t,
        "response_length/mean": 40 + 25 * t + rng.gauss(0, 2),
        "response_length/max": 96.0,
        "response_length/min": 9.0,
        "response_length/clip_ratio": max(0.0, 0.04 + 0.1 * t + rng.gauss(0, 0.01)),
        "actor/pg_loss": rng.gauss(0, 0.02),
        "actor/ppo_kl": abs(rng.gauss(0.002, 0.001)),
        "actor/pg_clipfrac": abs(rng.gauss(0.02, 0.01)),
        "actor/entropy": 0.9 * math.exp(-1.4 * t) + rng.gauss(0, 0.01),
        "actor/grad_norm": abs(rng.gauss(0.5, 0.1)) + (6.0 if step == 90 else 0.0),
        "actor/lr": 1e-5 * min(1.0, step / 10),
        "rollout_corr/kl": rng.gauss(0.0003, 0.0002),
        "rollout_corr/k3_kl": abs(rng.gauss(0.0006, 0.0002)),
        "rollout_corr/rollout_is_mean": rng.gauss(1.0, 0.004),
        "training/rollout_logprobs_diff_mean": abs(rng.gauss(0.006, 0.001)),
        "training/rollout_logprobs_diff_max": abs(rng.gauss(0.2, 0.05)),
        "verdict/correct": correct,
        "verdict/no_answer": no_answer,
        "verdict/wrong": 64 - correct - no_answer - timeout,
        **({"verdict/timeout": timeout} if timeout else {}),
        "timing_s/gen": gen,
        "timing_s/reward": reward,
        "timing_s/adv": 0.02,
        "timing_s/update_actor": update,
        "timing_s/sync": sync,
        "timing_s/step": gen + reward + update + sync + 0.15,
        "perf/tokens": 5200.0,
        "perf/throughput": 5200 / (gen + update),
        "batch/samples": 64,
        "batch/skipped_no_signal": 64 * min(0.6, 0.1 + 0.3 * t),
    }


def accuracy(step: int, mean: float) -> dict[str, float]:
    out: dict[str, float] = {}
    for what, shift in (("sampled_accuracy", 0.0), ("greedy_accuracy", 0.03), ("pass@4", 0.17)):
        m = min(0.97, mean + shift)
        out |= {f"val-core/sums/{what}/{k}": m + d for k, d in (("mean", 0.0), ("low", -0.045), ("high", 0.045))}
    return out | ({"timing_s/eval": 4.0} if step else {})


def metrics_rows() -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows: list[dict[str, Any]] = [{"step": 0, "stage": "sft", **accuracy(0, 0.09)}]
    for step in range(1, SFT + 1):
        loss = 0.4 + 1.8 * math.exp(-step / 12) + rng.gauss(0, 0.03)
        seconds = {"timing_s/update_actor": 0.7, "timing_s/step": 0.75}
        rows.append({"step": step, "stage": "sft", "train/ce_loss": loss, "actor/grad_norm": 1.4 * loss, **seconds})
    rows[-1] |= accuracy(SFT, 0.27)
    for step in range(1, GRPO + 1):
        rows.append(online_row(step, rng))
        if step % 20 == 0:
            rows[-1] |= accuracy(step, 0.27 + 0.42 * (step / GRPO) ** 0.7)
        if step % 50 == 0:
            rows[-1]["timing_s/checkpoint"] = 2.2
    return rows


def sample_row(i: int, step: int) -> dict[str, Any]:
    rng = random.Random(i)
    a, b, c = (rng.randrange(1, 90) for _ in range(3))
    verdict = rng.choices(["correct", "wrong", "no_answer", "timeout"], [6, 3, 1, 0.2])[0]
    said = a + b + c if verdict == "correct" else a + b + c + rng.randrange(1, 9)
    text = f"{a}+{b}={a + b}. Then {a + b}+{c}={a + b + c}. #### {said}"
    text = text.split("####")[0] if verdict == "no_answer" else text
    value = {"correct": 1.0, "timeout": None}.get(verdict, 0.0)
    return {
        "id": f"0-{step}-sums-{i}-{i % 8}",
        "step": step,
        "stage": "grpo",
        "prompt_id": f"sums-{i}",
        "index": i % 8,
        "prompt": f"user: What is {a}+{b}+{c}? Put the result after ####.",
        "text": text,
        "stop": "eos",
        "gold": str(a + b + c),
        "value": value,
        "verdict": verdict,
        "reason": {"correct": "match/rational", "wrong": "mismatch"}.get(verdict, verdict),
        "extracted": None if verdict == "no_answer" else str(said),
        "breakdown": {"math": value, "format": 1.0, "length": -0.1},
        "advantage": None if value is None else value - 0.6,
        "policy_version": step,
        "tokens": [ord(character) for character in text],
        "logprobs": [-abs(rng.gauss(0, 0.6)) for _ in text],
        "length": len(text),
        "task": "sums",
    }


def make_run(folder: Path) -> Path:
    """A finished run of two stages with everything a run folder may hold."""
    folder.mkdir(parents=True)
    write_lines(folder / "metrics.jsonl", metrics_rows())
    write_lines(folder / "samples.jsonl", [sample_row(i, SFT + 1 + i // 8) for i in range(8 * GRPO)])
    (folder / "base_config.yaml").write_text(
        "seed: 0\nmodel: {path: models/tiny, dtype: float32}\nrl: {steps: 100, lr: 1e-6, loss: policy, kl: 0.001}\n"
    )
    (folder / "config.yaml").write_text(
        "seed: 0\nmodel: {path: models/tiny, dtype: bfloat16}\nstages: [sft, grpo]\n"
        "rl: {steps: 160, lr: 1e-5, loss: {name: policy, clip_low: 0.2, clip_high: 0.28}, samples_per_prompt: 8}\n"
    )
    environment = {
        "git": {"commit": "0f3c2ab91d5e", "dirty": False},
        "packages": {"torch": "2.9.1", "transformers": "5.12.0", "numpy": "2.3.1"},
        "hardware": {"cpus": 8, "memory_gib": 31.2, "devices": []},
        "data": {"train": "sha256:9a1e", "held_out": "sha256:77c0"},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    summary = {
        "base_accuracy": {"mean": 0.09, "low": 0.06, "high": 0.12, "n": 400},
        "final_accuracy": {"mean": 0.69, "low": 0.645, "high": 0.735, "n": 400},
        "seconds": {"gen": 330.0, "update_actor": 240.0, "total": 741.0},
        "steps": SFT + GRPO,
        "tokens": 832_000,
        "peak_memory_bytes": 3_400_000_000,
        "stages": [{"stage": "sft", "step": SFT, "mean": 0.09, "low": 0.06, "high": 0.12, "n": 400}],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
