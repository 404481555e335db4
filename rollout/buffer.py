"""What is made ahead of its use: a bounded number of collections that run beside training, handed out in order.

Used by the online loop. It knows nothing of models, prompts or devices: `make` is any coroutine of a step number. With
`ahead=0` a batch is made when it is asked for and nothing ever runs beside the caller; with `ahead=k`, while the caller
works on the batch of step s, those of steps s+1 … s+k may be in the making. They are started in the order of their
steps and may end in any; an error shows at the `take` of its step, and leaving the context cancels what nobody took.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Buffer(Generic[T]):
    """Batches of consecutive steps. An async context manager: no task outlives it.

    Args:
        make: the batch of a step.
        steps: in the order in which they are taken.
        ahead: batches that may be in the making, or ready, beyond the one in use.
    """

    def __init__(self, make: Callable[[int], Coroutine[Any, Any, T]], steps: Iterable[int], *, ahead: int) -> None:
        assert ahead >= 0, "a batch is not made after its use"
        self._make, self._left, self.ahead = make, deque(steps), ahead
        self._tasks: deque[asyncio.Task[T]] = deque()

    @property
    def ready(self) -> int:
        """Batches that wait to be taken."""
        return sum(task.done() for task in self._tasks)

    @property
    def making(self) -> int:
        """Batches that are being made."""
        return len(self._tasks) - self.ready

    async def take(self) -> T:
        """The batch of the next step.

        Raises:
            Exception: whatever its making raised. IndexError: every step has been taken.
        """
        if not self.ahead:
            # In the caller's own task, so that an interrupt hits the caller and not a task beside it.
            return await self._make(self._left.popleft())
        while self._left and len(self._tasks) <= self.ahead:
            task = asyncio.create_task(self._make(self._left.popleft()))
            task.add_done_callback(_notice)
            self._tasks.append(task)
        # Let what was started send its requests before the caller computes, or goes on without ever waiting.
        await asyncio.sleep(0)
        return await self._tasks.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _notice(task: asyncio.Task[Any]) -> None:
    """Look at a task's error now: asyncio warns of errors that nobody looked at, and this one may never be taken."""
    if not task.cancelled():
        task.exception()
