"""Brings the runs of a sweep to their ends, some at once, wherever an executor runs them.

    consumes    runs that are not done, in order
    produces    run folders; a log per run, and a mark with the last words of one that failed
    waits for   room at the executor

A failed run stops no other and is tried again by the next call. Whatever ends a sweep, a run had reached its last
checkpoint, from which the same command goes on. There are two executors: `local_processes` and `ray_jobs`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from rlhf.sweeps.runs import Run, Status

LAST_WORDS = 2000
"""Characters of a failed run's log that are kept with its mark."""

FINISHED = "finished"
"""What has become of a run that came to its end."""
Notice = Callable[[str], None]
"""Told in a line of everything that begins and ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A run that is under way no longer."""

    run: Run
    failure: str = ""
    """Why and with which last words; empty when the command says that it has succeeded."""
    again: bool = False
    """It was kept from running through no fault of its own and waits for its turn once more."""


class Executor(Protocol):
    """Where runs are run. It knows those under way; its runner asks and decides."""

    poll_s: float
    """Seconds between two looks at what has ended."""
    begun: str
    """What `start` has done, in a word."""

    def describe(self) -> str:
        """How many at once and where, for the first line of a sweep."""
        ...

    def resume(self, runs: Sequence[Run]) -> list[Run]:
        """Take charge of those that an earlier call has left under way. Returns them."""
        ...

    def has_room(self) -> bool:
        """Whether one more run can be started now."""
        ...

    def start(self, run: Run) -> None:
        """Set a run going."""
        ...

    def ended(self) -> list[Ended]:
        """Runs that have ended since the last call."""
        ...

    def stop(self) -> None:
        """End everything that is under way, and wait until nobody writes any more."""
        ...


def execute(
    runs: Sequence[Run],
    executor: Executor,
    *,
    seconds: float,
    notice: Notice,
    look: Callable[[Run], None] = lambda run: None,
) -> None:
    """Bring every run to its end, or to its failure.

    Args:
        runs: those that are done are left alone.
        executor: runs the others.
        seconds: after which no run starts any more; 0 sets no limit.
        notice: told of everything that begins and ends.
        look: at every run that has come to its end.
    """
    waiting = deque(run for run in runs if run.status != Status.DONE)
    going, begun = dict[str, float](), time.monotonic()
    with _signals_interrupt():
        try:
            for run in executor.resume(waiting):
                waiting.remove(run)
                going[run.name] = time.monotonic()
                notice(f"{'found':<9} {run.name}  under way since an earlier call")
            while waiting or going:
                late = seconds > 0 and time.monotonic() - begun > seconds
                if late and waiting:
                    notice(f"{len(waiting)} runs are left when the budget of {seconds / 60:g} minutes is used up")
                    waiting.clear()
                while waiting and executor.has_room():
                    run = waiting.popleft()
                    run.failed.unlink(missing_ok=True)
                    executor.start(run)
                    going[run.name] = time.monotonic()
                    notice(f"{executor.begun:<9} {run.name}")
                for end in executor.ended():
                    after = time.monotonic() - going.pop(end.run.name)
                    if end.again and not late:
                        waiting.appendleft(end.run)
                    done = sum(run.status == Status.DONE for run in runs)
                    became = _outcome(end)
                    notice(f"{became:<9} {end.run.name}  after {after:.0f} s  [{done}/{len(runs)}]")
                    if became == FINISHED:
                        look(end.run)
                time.sleep(executor.poll_s if going else 0)
        finally:
            executor.stop()


def command(run: Run, *, cache: Path | None) -> list[str]:
    """What runs a run in a process of its own, the same wherever that is.

    Args:
        run: to be run.
        cache: of stages that runs share; None shares nothing.
    """
    return [sys.executable, "-m", "rlhf.cli", *run.command, *([] if cache is None else ["--cache", str(cache)])]


def last_words(run: Run) -> str:
    """The end of a run's log; empty when it never wrote any."""
    try:
        return run.log.read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:].strip()
    except FileNotFoundError:
        return ""


def _outcome(end: Ended) -> str:
    """Note a failure. Returns what has become of the run, in a word."""
    if end.again:
        return "waits"
    if not end.failure and end.run.status == Status.DONE:
        return FINISHED
    failure = end.failure or f"exit code 0, but no result\n{last_words(end.run)}"
    end.run.failed.write_text(f"{failure}\n", encoding="utf-8")
    return "FAILED"


@contextmanager
def _signals_interrupt() -> Generator[None]:
    """Have a request to terminate end the sweep as Ctrl-C does, so that what is under way is stopped first."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    # Under nohup a hang-up is ignored, and shall be.
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in ours:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
