"""Two arms of a sweep at once against one after the other: the share of the time that is left.

    python benchmarks/sweep_parallel.py [--pairs 2] [--steps 60]

Runs the same small sweep (configs/micro.yaml, two arms, one seed, no shared stages, one thread each) with `parallel=1`
and `parallel=2` in turn, each time in a folder of its own, and prints the ratio of the times of whole commands. Needs
two idle cores; takes about a minute per pair and 60 steps. Exit status 1 when the median misses its target.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = 0.65
SWEEP = """
title: Clipping
config: {config}
set: {{sft: {{steps: {steps}}}, rl: {{steps: {rl_steps}, evaluate_every: 0}}}}
arms: {{narrow: {{}}, wide: {{rl.loss.clip_high: 0.28}}}}
seeds: [0]
metrics: {{accuracy: {{key: val-core/sums/sampled_accuracy/mean}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60, help="supervised steps of each run; a quarter as many of RL")
    args = parser.parse_args()
    ratios: list[float] = []
    for _ in range(args.pairs):
        alone, together = (seconds(parallel, args.steps) for parallel in (1, 2))
        ratios.append(together / alone)
        print(f"one after the other {alone:.1f} s, at once {together:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
    median = statistics.median(ratios)
    print(f"median ratio {median:.2f} (target at most {TARGET})")
    sys.exit(median > TARGET)


def seconds(parallel: int, steps: int) -> float:
    """Wall-clock time of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        config = ROOT / "configs" / "micro.yaml"
        text = SWEEP.format(config=config, steps=steps, rl_steps=max(1, steps // 4))
        (Path(folder) / "fight.yaml").write_text(text)
        env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "rlhf.cli", "sweep", "fight.yaml", "--no-cache", f"parallel={parallel}"]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
