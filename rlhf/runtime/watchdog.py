"""Deadlines for calls to other processes: nothing waits for ever for somebody who will not answer.

A phase (generation, backward, sync, …) is given so many times the longest that it has taken before, and never less
than a floor; before it has a history, a generous first limit holds. A missed deadline is reported, with what every
process is doing at that moment, and ends as `LostError`, which the pool or the pipeline recovers from, or the command
ends with.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from rlhf.core.errors import ConfigError, LostError

T = TypeVar("T")
REMEMBERED = 50
"""Calls of a phase that its deadline follows from."""


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long to wait."""

    times_longest: float = 10.0
    """A call may take this many times as long as the longest recent one of its phase."""
    least_s: float = 120.0
    """No deadline is shorter, in seconds."""
    first_s: float = 1800.0
    """Deadline of a phase that has not been seen before, in seconds; it includes loading a model."""

    def __post_init__(self) -> None:
        for name in ("times_longest", "least_s", "first_s"):
            if vars(self)[name] <= 0:
                raise ConfigError(name, f"{vars(self)[name]} leaves no time", fix="use a positive number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A deadline that passed."""

    role: str
    phase: str
    peer: str
    """Whom the call itself waits for, as far as the caller knows."""
    seconds: float

    def __str__(self) -> str:
        waits = f", which waits for {self.peer}" if self.peer else ""
        return f"no answer from {self.role}{waits} in {self.seconds:.0f} s of phase '{self.phase}'"


class Watchdog:
    """Waits for calls, and not for longer than is plausible.

    Args:
        report: told of a missed deadline before the error is raised.
    """

    def __init__(self, cfg: Deadlines, *, report: Callable[[Missed], Awaitable[None]]) -> None:
        self._cfg, self._report = cfg, report
        self._history: dict[str, deque[float]] = {}

    def deadline(self, phase: str) -> float:
        """Seconds that a call of this phase is given now."""
        seen = self._history.get(phase)
        return max(self._cfg.least_s, self._cfg.times_longest * max(seen)) if seen else self._cfg.first_s

    async def call(self, answer: Awaitable[T], *, role: str, phase: str, peer: str = "") -> T:
        """Wait for an answer.

        Raises:
            LostError: it did not come in time.
        """
        limit, start = self.deadline(phase), time.monotonic()
        waiting = asyncio.ensure_future(_awaited(answer))
        done, _ = await asyncio.wait({waiting}, timeout=limit)
        if not done:
            waiting.cancel()
            missed = Missed(role=role, phase=phase, peer=peer, seconds=limit)
            await self._report(missed)
            raise LostError(role, str(missed))
        self._history.setdefault(phase, deque(maxlen=REMEMBERED)).append(time.monotonic() - start)
        return waiting.result()


async def _awaited(answer: Awaitable[T]) -> T:
    return await answer
