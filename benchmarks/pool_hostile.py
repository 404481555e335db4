"""How much a pool of workers still serves when one item in twenty is hostile, against itself without them.

python benchmarks/pool_hostile.py [--items 500] [--work-ms 20] [--deadline 1.0] [--workers 2] [--out FILE]

Clean items take `--work-ms` of CPU. The hostile ones are, in equal parts, crashes (a segmentation fault), hangs (an
endless loop at full speed, until the deadline; with `--sleepy` one that sleeps) and memory bombs (which grow up to
their limit). Each first tries to kill a process and to overwrite a file, the canaries. All are shuffled with a fixed
seed. The deadline's default is that of `rewards.math.sympy`, the pool's own customer. Clean throughput is clean items
by the time until the last of them is done; `with_tail` counts until the last hostile one is over, too. Under `nice` 19
slow items cannot stand back as far as they otherwise do, which costs a few percent.

Runs with and without hostile items alternate, `--repeats` of each; the ratio is that of the sums of their times, the
range that of neighbouring runs. Exit code 1 when a clean item got another result than its own, a hostile one got
any, or the canaries, a file and a process, were touched.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from rewards.pool import Limits, Outcome, PoolConfig, WorkerPool

SHARE = 0.05
KINDS = ("crash", "hang", "bomb")


def item(request: dict[str, Any]) -> dict[str, float]:
    """What runs in a worker: some work, or harm."""
    kind = request["kind"]
    if kind != "clean":
        for harm in (
            lambda: os.kill(request["canary"], signal.SIGKILL),
            lambda: Path(request["file"]).write_text("touched"),
        ):
            with contextlib.suppress(OSError):
                harm()
    if kind == "crash":
        os.kill(os.getpid(), 11)
    if kind == "bomb":
        held: list[bytearray] = []
        while True:
            held.append(bytearray(b"x" * 2**20))
    if kind == "hang":
        while True:
            if request["sleepy"]:
                time.sleep(60)
    end, total = time.process_time() + request["work_s"], 0
    while time.process_time() < end:
        total += sum(range(100))
    return {"number": request["number"], "done": time.monotonic()}


def requests(count: int, *, hostile: bool, work_s: float, sleepy: bool) -> list[dict[str, Any]]:
    """Clean items, and hostile ones among them so that they are `SHARE` of all."""
    kinds = ["clean"] * count
    if hostile:
        extra = round(count * SHARE / (1 - SHARE))
        kinds += [KINDS[n % len(KINDS)] for n in range(extra)]
        random.Random(0).shuffle(kinds)
    return [{"kind": kind, "number": n, "work_s": work_s, "sleepy": sleepy} for n, kind in enumerate(kinds)]


def served(pool: WorkerPool, asked: list[dict[str, Any]], *, deadline: float) -> dict[str, Any]:
    """Clean items per second, and what was wrong."""
    began = time.monotonic()
    outcomes = pool.map(f"{Path(__file__).stem}:item", asked, timeout_s=deadline, batch=4)
    over = time.monotonic()
    right = [found for request, outcome in zip(asked, outcomes, strict=True) if (found := _right(request, outcome))]
    clean = sum(request["kind"] == "clean" for request in asked)
    hostile = [outcome for request, outcome in zip(asked, outcomes, strict=True) if request["kind"] != "clean"]
    return {
        "items": len(asked),
        "per_s": len(right) / (max(right) - began),
        "per_s_with_tail": len(right) / (over - began),
        "clean_lost": clean - len(right),
        "hostile_with_a_value": sum(outcome.error is None for outcome in hostile),
        "ends": _counted(hostile),
    }


def _right(request: dict[str, Any], outcome: Outcome) -> float:
    """When a clean item was done; 0 for a hostile one, and for a result that is not its own."""
    if request["kind"] != "clean" or outcome.error is not None:
        return 0.0
    found = cast("dict[str, float]", outcome.value)
    return found["done"] if found["number"] == request["number"] else 0.0


def _counted(hostile: list[Outcome]) -> dict[str, int]:
    names = [outcome.error.__class__.__name__ + getattr(outcome.error, "kind", "") for outcome in hostile]
    return {name: names.count(name) for name in sorted({*names})}


def main() -> int:
    """Measure, print, and say whether all was as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--work-ms", type=float, default=20.0)
    parser.add_argument("--deadline", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory-mb", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--sleepy", action="store_true")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    cfg = PoolConfig(workers=asked.workers, limits=Limits(memory_mb=asked.memory_mb), writable=[])
    runs: dict[str, list[dict[str, Any]]] = {"clean": [], "hostile": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "canary"
        file.write_text("untouched")
        canary = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        with WorkerPool(cfg) as pool:
            served(pool, requests(100, hostile=False, work_s=0.001, sleepy=False), deadline=10)
            print(pool.protections())
            for _ in range(asked.repeats):
                for name, found in runs.items():
                    batch = requests(
                        asked.items, hostile=name == "hostile", work_s=asked.work_ms / 1000, sleepy=asked.sleepy
                    )
                    harmful = {"canary": canary.pid, "file": str(file)}
                    found.append(served(pool, [request | harmful for request in batch], deadline=asked.deadline))
                    print(name, json.dumps(found[-1]), flush=True)
        touched = file.read_text() != "untouched" or canary.poll() is not None
        canary.communicate(b"")
    report: dict[str, Any] = {"settings": {key: value for key, value in vars(asked).items() if key != "out"}}
    report |= {"runs": runs, "canary_touched": touched}
    for key in ("per_s", "per_s_with_tail"):
        clean, mixed = ([run[key] for run in runs[name]] for name in runs)
        ratio = sum(1 / rate for rate in clean) / sum(1 / rate for rate in mixed)
        pairs = [b / a for a, b in zip(clean, mixed, strict=True)]
        report |= {f"{key}_ratio": ratio, f"{key}_pairs": pairs}
        print(f"{key}: {ratio:.1%} of clean throughput, {min(pairs):.1%} to {max(pairs):.1%}")
    if asked.out:
        asked.out.write_text(json.dumps(report, indent=1))
    wrong = any(run["clean_lost"] or run["hostile_with_a_value"] for found in runs.values() for run in found)
    return int(wrong or touched)


if __name__ == "__main__":
    sys.exit(main())
