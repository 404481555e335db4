"""What one driver costs per trajectory, against the number of engines it drives.

    python benchmarks/orchestration.py [--groups 10000] [--steps 8] [--engines 1 4 16 64 256] [--plot FILE.svg]

Runs the real online loop with `max_staleness: 3` around a pool of engines that answer after some seconds and compute
nothing: a quarter of the groups are prompts of one step, so that all of them are in flight at once. With more than one
engine, some calls kill theirs, and it is replaced. Driver time is the processor time of the whole process, the cost of
simulating engines included: rendering prompts, requests, routing, trajectories, advantages, packing, logs. Checked: no
prompt is lost, none is trained on twice, and memory stops growing once the buffer is full. One process per number
of engines, a minute each. Exit status 1 when the largest pool misses its target or a check fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from simulation import Prompts, SimulatedEngine, Simulation

from rlhf.core.errors import LostError
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request
from rlhf.loops.prompts import PromptStream
from rollout.pool import EnginePool

TARGET_MS = 1.0
SAMPLES, AHEAD = 4, 3
SECONDS = (4.0, 8.0)
"""What a call to an engine takes, drawn evenly."""
DEATHS = 10
"""Calls that kill their engine, about, in a run with more than one engine."""
GROWTH = 1.15
"""Memory at the end against memory when every batch of the buffer has been replaced once, at most."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number of engines."""

    engines: int
    ms_per_trajectory: float
    """Of the driver's processor time."""
    seconds: float
    groups_in_flight: int
    """Most at once."""
    replaced: int
    """Engines that died."""
    mib_full: float
    """Memory of the process when the buffer has been through once."""
    mib_end: float
    intact: bool
    """Every prompt in its place, once, and trained on once."""


class Flight:
    """How many requests are with engines."""

    now = peak = 0

    def add(self, count: int) -> None:
        """Negative when they come back."""
        self.now += count
        self.peak = max(self.peak, self.now)


class Mortal(SimulatedEngine):
    """An engine that some calls kill."""

    def __init__(self, flight: Flight, draw: random.Random, *, deadly: float) -> None:
        super().__init__(lambda: draw.uniform(*SECONDS))
        self._flight, self._draw, self._deadly = flight, draw, deadly
        self._dead = False

    async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        self._dead = self._dead or self._draw.random() < self._deadly
        self._flight.add(len(requests))
        try:
            done = await super().generate(requests, sampling=sampling)
        finally:
            self._flight.add(-len(requests))
        if self._dead:
            raise LostError("engine", "died")
        return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=10_000, help="in flight")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--engines", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(asdict(measure(args.only, groups=args.groups, steps=args.steps))))
        return 0
    print(f"{args.groups} groups of {SAMPLES} samples in flight, {args.steps} steps\n")
    print("| engines | driver, ms per trajectory | groups in flight | replaced | memory, buffer full | at the end |")
    print("|---|---|---|---|---|---|")
    found: list[Measured] = []
    for engines in args.engines:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", str(engines)]
        found.append(Measured(**json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)))
        out = found[-1]
        cells = f"{out.ms_per_trajectory:.3f} | {out.groups_in_flight} | {out.replaced}"
        print(f"| {engines} | {cells} | {out.mib_full:.0f} MiB | {out.mib_end:.0f} MiB |", flush=True)
    if args.plot:
        plot(found, args.plot)
    intact = all(out.intact for out in found)
    bounded = all(out.mib_end <= GROWTH * out.mib_full for out in found)
    fate, growth = "all there, each once" if intact else "LOST OR DOUBLED", "bounded" if bounded else "GROWS"
    print(f"\nprompts {fate}; memory {growth}")
    print(f"{found[-1].ms_per_trajectory:.3f} ms per trajectory (target at most {TARGET_MS})")
    return 0 if intact and bounded and found[-1].ms_per_trajectory <= TARGET_MS else 1


def measure(engines: int, *, groups: int, steps: int) -> Measured:
    """Run the loop once, in this process."""
    per_step, prompts = groups // (AHEAD + 1), groups
    keys = {"steps": steps, "prompts_per_step": per_step, "samples_per_prompt": SAMPLES, "max_staleness": AHEAD}
    flight, draw, memory = Flight(), random.Random(0), list[float]()
    deadly = DEATHS / (steps * per_step) if engines > 1 else 0.0

    def engine() -> Mortal:
        return Mortal(flight, draw, deadly=deadly)

    async def replace(place: int) -> Mortal:
        made = engine()
        made.version = simulation.learner.version
        return made

    def update() -> float:
        memory.append(_resident_mib())
        return 0.0

    limit = -(-groups * SAMPLES // engines)
    pool = EnginePool([engine() for _ in range(engines)], replace=replace, in_flight=limit, attempts=DEATHS)
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(path=Path(folder), keys=keys, engine=pool, train_seconds=update, prompts=prompts)
        began, clock = time.process_time(), time.perf_counter()
        asyncio.run(simulation.run())
        spent, seconds = time.process_time() - began, time.perf_counter() - clock
        intact = _intact(simulation, count=steps * per_step)
    return Measured(
        engines=engines,
        ms_per_trajectory=1000 * spent / (steps * per_step * SAMPLES),
        seconds=seconds,
        groups_in_flight=flight.peak // SAMPLES,
        replaced=pool.replaced,
        mib_full=max(memory[: AHEAD + 2]),
        mib_end=memory[-1],
        intact=intact,
    )


def plot(found: Sequence[Measured], path: Path) -> None:
    """Cost against the number of engines."""
    matplotlib.rcParams["svg.hashsalt"] = "orchestration"
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([out.engines for out in found], [out.ms_per_trajectory for out in found], "o-", color="#2f6fdb")
    axes.axhline(TARGET_MS, color="#667085", linestyle="--", linewidth=0.8)
    axes.annotate("target", (found[0].engines, TARGET_MS), xytext=(0, -10), textcoords="offset points", color="#667085")
    axes.set(xscale="log", xlabel="engines", ylabel="driver, ms per trajectory", ylim=(0, 1.1 * TARGET_MS))
    axes.set_xticks([out.engines for out in found], [str(out.engines) for out in found])
    axes.minorticks_off()
    figure.savefig(path, metadata={"Date": None})


def _intact(simulation: Simulation, *, count: int) -> bool:
    """The prompts of all steps are the stream's, in order, and each sample was trained on once."""
    used: list[str] = []
    with (simulation.path / "samples.jsonl").open() as log:
        for line in log:
            row: dict[str, Any] = json.loads(line)
            used += [row["prompt_id"]] if row["index"] == 0 else []
    stream = PromptStream(Prompts(simulation.prompts).train(), seed=0, name="rl")
    trained = Counter(simulation.learner.trained)
    ordered = used == [prompt.id for prompt in stream.take(0, count)]
    return ordered and len(trained) == count * SAMPLES and set(trained.values()) == {1}


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    sys.exit(main())
