"""A word from outside to stop: the step is finished, a checkpoint written, and the same command goes on from there.

The command listens; the stages ask between steps. SIGUSR1 is a scheduler's warning that the time runs out: the command
ends with 75 (EX_TEMPFAIL), which says "start me again". SIGTERM is an order to end: 143, as a shell has it.

While no step is under way (imports, set-up, the summary) nothing is lost by leaving, and a signal ends the command
there and then, like Ctrl-C. A second signal kills the process at once, even one that hangs; the last checkpoint stays
whole.

Libraries put handlers of their own in place (`ray.init` does, for SIGTERM), so every step puts these back.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

EXIT_CODES = {signal.SIGUSR1: 75, signal.SIGTERM: 143}
"""Signals that are heeded, and how the command ends after each."""

_Handler = Callable[[int, FrameType | None], object] | int | None


class Interrupted(BaseException):
    """Ends a command on request. Not an `Exception`: no boundary that survives failures may take it for one.

    Args:
        received: the signal.
        step: global step whose checkpoint was just written; None when none was under way.
    """

    def __init__(self, received: signal.Signals, *, step: int | None) -> None:
        where = "the last checkpoint" if step is None else f"the checkpoint of step {step}"
        super().__init__(f"interrupted by {received.name}; the same command continues from {where}")
        self.exit_code = EXIT_CODES[received]


class Interrupt:
    """Whether somebody wants this process to stop. As a context manager it listens; otherwise nobody ever does."""

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._holding = False
        self._before = dict[signal.Signals, _Handler]()

    def __enter__(self) -> Self:
        self._before = {which: signal.signal(which, self._receive) for which in EXIT_CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)
        self._before = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self._received is not None

    def hold(self) -> None:
        """A step begins: from now on a signal waits until somebody calls `heed` or `release`."""
        self._holding = True
        if not self.requested:
            for which in self._before:
                signal.signal(which, self._receive)

    def heed(self, step: int) -> None:
        """The checkpoint of a step is written: end here if a signal has come.

        Raises:
            Interrupted: one has.
        """
        if self._received is not None:
            raise Interrupted(self._received, step=step)

    def release(self) -> None:
        """No step is under way any more: a signal ends the command where it is.

        Raises:
            Interrupted: one came since the last step asked.
        """
        self._holding = False
        if self._received is not None:
            raise Interrupted(self._received, step=None)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = received = signal.Signals(number)
        for which in self._before:
            signal.signal(which, signal.SIG_DFL)
        if not self._holding:
            raise Interrupted(received, step=None)
        # Not print: the signal may have come in the middle of one.
        os.write(2, f"{received.name}: ending after this step; a second signal ends at once\n".encode())
