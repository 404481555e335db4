"""Runs the runs of a sweep, some at once, each in a process of its own with cores of its own.

    consumes    runs that are not done, in order
    produces    run folders; a log per run, and a mark with the last words of one that failed
    waits for   a free slot

A process dies with its parent, whatever ends that, so that a killed sweep leaves nobody behind who writes on; what it
had reached is its last checkpoint, from which the same command goes on. A failed run stops no other and is tried again
by the next call.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf.core.process import die_with_parent
from rlhf.sweeps.runs import Run, Status

POLL_S = 0.2
LAST_WORDS = 2000
"""Characters of a failed run's log that are kept with its mark."""

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Room for one run: its cores, and its GPU if there is one."""

    cores: tuple[int, ...]
    gpu: str | None


@dataclass(slots=True, kw_only=True)
class _Going:
    run: Run
    slot: Slot
    process: subprocess.Popen[bytes]
    started: float


def slots(parallel: int, *, threads: int) -> list[Slot]:
    """Cores dealt out so that no two runs share one while there are enough.

    Args:
        parallel: runs at once; 0: as many as there are GPUs, else as `threads` go into the cores.
        threads: of each run.
    """
    cores = sorted(os.sched_getaffinity(0))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(i) for i in range(torch.cuda.device_count())]
    gpus = visible.split(",")[: len(gpus)] if visible else gpus
    count = parallel or len(gpus) or max(1, len(cores) // threads)
    return [
        Slot(
            cores=tuple(cores[(i * threads + k) % len(cores)] for k in range(min(threads, len(cores)))),
            gpu=gpus[i % len(gpus)] if gpus else None,
        )
        for i in range(count)
    ]


def execute(runs: Sequence[Run], places: Sequence[Slot], *, cache: Path | None, seconds: float, notice: Notice) -> None:
    """Bring every run to its end, or to its failure.

    Args:
        runs: those that are done are left alone.
        places: as many run at once.
        cache: of stages that runs share; None shares nothing.
        seconds: after which no run starts any more; 0 sets no limit.
        notice: told in a line of everything that begins and ends.
    """
    waiting = [run for run in runs if run.status != Status.DONE]
    free, going = list(places), list[_Going]()
    total, begun = len(runs), time.monotonic()
    try:
        while waiting or going:
            late = seconds > 0 and time.monotonic() - begun > seconds
            if late and waiting:
                notice(f"{len(waiting)} runs are left when the budget of {seconds / 60:g} minutes is used up")
                waiting.clear()
            while waiting and free:
                going.append(_start(waiting.pop(0), free.pop(0), cache))
                notice(f"started   {going[-1].run.name}")
            for one in [one for one in going if one.process.poll() is not None]:
                going.remove(one)
                free.append(one.slot)
                done = sum(run.status == Status.DONE for run in runs)
                notice(f"{_end(one):<9} {one.run.name}  after {time.monotonic() - one.started:.0f} s  [{done}/{total}]")
            time.sleep(POLL_S if going else 0)
    finally:
        for one in going:
            one.process.send_signal(signal.SIGINT)
        for one in going:
            one.process.wait()


def _start(run: Run, slot: Slot, cache: Path | None) -> _Going:
    run.failed.unlink(missing_ok=True)
    env = os.environ | {"OMP_NUM_THREADS": str(len(slot.cores)), "PYTHONUNBUFFERED": "1"}
    if slot.gpu is not None:
        env["CUDA_VISIBLE_DEVICES"] = slot.gpu
    command = [sys.executable, "-m", "rlhf.cli", *run.command, *([] if cache is None else ["--cache", str(cache)])]
    with run.log.open("ab") as log:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_child_setup(slot)
        )
    return _Going(run=run, slot=slot, process=process, started=time.monotonic())


def _child_setup(slot: Slot) -> Callable[[], None]:
    """What the child does before it becomes the run: keep to its cores, and die with its parent."""
    parent = os.getpid()

    def setup() -> None:
        os.sched_setaffinity(0, slot.cores)
        # Out of the terminal's group: Ctrl-C reaches the sweep, which passes it on once.
        os.setpgid(0, 0)
        die_with_parent(parent)

    return setup


def _end(one: _Going) -> str:
    """Note a failure. Returns what has become of the run, in a word."""
    code = one.process.returncode
    if code == 0 and one.run.status == Status.DONE:
        return "finished"
    said = one.run.log.read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:].strip()
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    one.run.failed.write_text(f"{ended}\n{said}\n", encoding="utf-8")
    return "FAILED"
