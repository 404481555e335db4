"""Rollout and training at the same time: the share of the synchronous time that `max_staleness: 1` takes.

    python benchmarks/overlap.py [--seconds 0.2] [--steps 20]

Runs the real online loop around an engine and a learner that take equally long per step and compute nothing, with
`max_staleness` 0, 1 and 2 in turn. The ideal above 0 is (steps + 1) / (2 steps): everything overlaps but the first
rollout. Takes half a minute. Exit status 1 when the share misses its target.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from simulation import SimulatedEngine, Simulation

TARGET = 0.6


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run."""

    seconds: float
    waited: float
    """By training for rollouts."""
    lay: float
    """What batches lay ready, waiting for training."""
    staleness: float
    """Updates behind, mean over tokens and steps."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.2, help="of rollout, and of training, per step")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    print(f"{args.steps} steps, rollout {args.seconds} s and training {args.seconds} s each\n")
    print("| max_staleness | seconds | share | training waited | batches lay ready | versions behind |")
    print("|---|---|---|---|---|---|")
    runs = {k: measure(k, seconds=args.seconds, steps=args.steps) for k in (0, 1, 2)}
    for k, run in runs.items():
        cells = (run.seconds, run.seconds / runs[0].seconds, run.waited, run.lay, run.staleness)
        print(f"| {k} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    share = runs[1].seconds / runs[0].seconds
    print(f"\nshare of the synchronous time {share:.3f} (target at most {TARGET})")
    return 0 if share <= TARGET else 1


def measure(max_staleness: int, *, seconds: float, steps: int) -> Measured:
    """Run the loop once."""
    keys = {"steps": steps, "prompts_per_step": 8, "samples_per_prompt": 4, "max_staleness": max_staleness}
    with tempfile.TemporaryDirectory() as folder:
        engine = SimulatedEngine(lambda: seconds)
        simulation = Simulation(path=Path(folder), keys=keys, engine=engine, train_seconds=lambda: seconds)
        start = time.perf_counter()
        asyncio.run(simulation.run())
        spent = time.perf_counter() - start
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return Measured(
        seconds=spent,
        waited=sum(row.get("timing_s/wait_rollout", row.get("timing_s/gen", 0.0)) for row in rows),
        lay=sum(row.get("perf/collect_s/wait", 0.0) for row in rows),
        staleness=statistics.fmean(row.get("staleness/mean", 0.0) for row in rows),
    )


if __name__ == "__main__":
    sys.exit(main())
