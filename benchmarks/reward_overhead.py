"""What grading costs: its share of a run's step time, and how many samples a verifier grades per second.

    python benchmarks/reward_overhead.py runs/quickstart

Reads `metrics.jsonl` and `samples.jsonl` of a run with an online stage; takes seconds. Evaluation and checkpoints are
no part of the step time here, so that their cadence does not flatter the share. Exit status 1 when the share misses its
target.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from rewards.math import verify
from rlhf.core.run_folder import RunFolder, read_lines

TARGET = 0.03
MIN_SECONDS = 1.0
"""How long the verifier is run for its rate."""

Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    folder = RunFolder(parser.parse_args().run)
    # The first graded step also starts the engine and the learner.
    steps = [row for row in read_lines(folder.metrics) if "timing_s/reward" in row][1:]
    samples = list(read_lines(folder.samples))
    if not steps or not samples:
        parser.error(f"{folder.path} holds no run with two graded steps or more")
    share = grading_share(steps)
    verifier_rate(samples)
    return 0 if share < TARGET else 1


def grading_share(steps: list[Row]) -> float:
    """Reward time over step time, over all steps."""
    seconds = [step_seconds(row) for row in steps]
    reward = [row["timing_s/reward"] for row in steps]
    graded = sum(row["batch/samples"] for row in steps)
    share = sum(reward) / sum(seconds)
    print(
        f"reward: {share:.2%} of the step time (target below {TARGET:.0%}), worst step"
        f" {max(r / s for r, s in zip(reward, seconds, strict=True)):.2%};"
        f" {sum(reward) / len(steps) * 1e3:.1f} ms of {sum(seconds) / len(steps) * 1e3:.0f} ms in {len(steps)} steps;"
        f" {graded / sum(reward):,.0f} samples/s with the rubric"
    )
    return share


def step_seconds(row: Row) -> float:
    return row["timing_s/step"] - row.get("timing_s/eval", 0.0) - row.get("timing_s/checkpoint", 0.0)


def verifier_rate(samples: list[Row]) -> None:
    """The math verifier alone, on this run's own samples."""
    pairs = [(row["text"], row["gold"]) for row in samples]
    graded, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < MIN_SECONDS:
        for text, gold in pairs:
            verify(text, gold)
        graded += len(pairs)
    print(f"verifier: {graded / spent:,.0f} samples/s on one core, {spent / graded * 1e6:.1f} us each")


if __name__ == "__main__":
    sys.exit(main())
