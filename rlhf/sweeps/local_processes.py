"""Runs the runs of a sweep on this machine, each in a process of its own with cores of its own.

A process dies with its parent, whatever ends that, so that a killed sweep leaves nobody behind who writes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf.core.process import die_with_parent
from rlhf.sweeps.runner import Ended, command, last_words
from rlhf.sweeps.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Room for one run: how many threads, on which cores, and its GPU if there is one."""

    threads: int
    cores: tuple[int, ...]
    gpu: str | None


@dataclass(slots=True, kw_only=True)
class _Going:
    run: Run
    slot: Slot
    process: subprocess.Popen[bytes]


def slots(parallel: int, *, threads: int) -> list[Slot]:
    """Cores dealt out so that no two runs share one while there are enough.

    Where they leave some over, the kernel deals them out: other processes need some too, and another sweep on this
    machine would take the same ones.

    Args:
        parallel: runs at once; 0: as many as there are GPUs, else as `threads` go into the cores.
        threads: of each run.
    """
    cores = sorted(os.sched_getaffinity(0))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(i) for i in range(torch.cuda.device_count())]
    gpus = visible.split(",")[: len(gpus)] if visible else gpus
    count = parallel or len(gpus) or max(1, len(cores) // threads)
    each = min(threads, len(cores))
    dealt = [tuple(cores[(i * each + k) % len(cores)] for k in range(each)) for i in range(count)]
    if count * each < len(cores):
        dealt = [tuple(cores)] * count
    return [Slot(threads=each, cores=own, gpu=gpus[i % len(gpus)] if gpus else None) for i, own in enumerate(dealt)]


class LocalProcesses:
    """The executor of this machine."""

    poll_s = 0.2
    begun = "started"

    def __init__(self, *, parallel: int, threads: int, cache: Path | None) -> None:
        self._free = slots(parallel, threads=threads)
        self._description = f"{len(self._free)} at once, {threads} thread(s) each"
        self._cache = cache
        self._going: list[_Going] = []

    def describe(self) -> str:
        """How many at once."""
        return self._description

    def resume(self, runs: Sequence[Run]) -> list[Run]:
        """Nothing: no process outlives the call that started it."""
        return []

    def has_room(self) -> bool:
        """Whether a slot is free."""
        return bool(self._free)

    def start(self, run: Run) -> None:
        """Start the process of a run on the next free slot."""
        slot = self._free.pop(0)
        env = os.environ | {"OMP_NUM_THREADS": str(slot.threads), "PYTHONUNBUFFERED": "1"}
        if slot.gpu is not None:
            env["CUDA_VISIBLE_DEVICES"] = slot.gpu
        with run.log.open("ab") as log:
            process = subprocess.Popen(
                command(run, cache=self._cache),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_child_setup(slot),
            )
        self._going.append(_Going(run=run, slot=slot, process=process))

    def ended(self) -> list[Ended]:
        """Runs whose process has ended; their slots are free again."""
        found: list[Ended] = []
        for one in [one for one in self._going if one.process.poll() is not None]:
            self._going.remove(one)
            self._free.append(one.slot)
            code = one.process.returncode
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            found.append(Ended(run=one.run, failure=f"{how}\n{last_words(one.run)}" if code else ""))
        return found

    def stop(self) -> None:
        """Interrupt every process, and wait for it."""
        for one in self._going:
            one.process.send_signal(signal.SIGINT)
        for one in self._going:
            one.process.wait()


def _child_setup(slot: Slot) -> Callable[[], None]:
    """What the child does before it becomes the run: keep to its cores, and die with its parent."""
    parent = os.getpid()

    def setup() -> None:
        os.sched_setaffinity(0, slot.cores)
        # Out of the terminal's group: Ctrl-C reaches the sweep, which passes it on once.
        os.setpgid(0, 0)
        die_with_parent(parent)

    return setup
