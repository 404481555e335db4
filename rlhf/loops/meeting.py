"""Where searches of many prompts share their calls of the engine and the grader.

A search is written as if it were alone. Its calls wait here until every search that is not at its end waits for one;
then they are made together, so that the engine decodes all prompts side by side. What a search gets does not depend on
who else is there: tokens follow from weights, prompt and a request's own seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

from rlhf.core.protocols import EngineHandle, Grader
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Group, Request

T = TypeVar("T")


@dataclass(slots=True)
class _Call:
    """One thing that is asked for; those with the same key are asked for together."""

    key: str
    work: Callable[[list[Any]], Awaitable[list[Any]]]
    item: Any
    found: Any = None


class Meeting:
    """Runs searches together. Each may wait for one call at a time."""

    def __init__(self, engine: EngineHandle, grader: Grader) -> None:
        self._engine, self._grader = engine, grader
        self._waiting: list[tuple[list[_Call], asyncio.Future[None]]] = []
        self._live = 0
        self._errands: asyncio.TaskGroup | None = None

    async def run(self, searches: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """What the searches come to, in their order.

        Raises:
            Exception: whatever the first one that failed did; the others are ended.
        """
        self._live = len(searches)
        try:
            async with asyncio.TaskGroup() as group:
                self._errands = group
                tasks = [group.create_task(self._counted(search)) for search in searches]
        except BaseExceptionGroup as error:
            raise error.exceptions[0] from error
        return [task.result() for task in tasks]

    async def generate(self, requests: Sequence[Request], samplings: Sequence[Sampling]) -> list[Completion]:
        """As `EngineHandle.generate`, with a sampling for each request."""
        return await self._visit([self._request(*asked) for asked in zip(requests, samplings, strict=True)])

    async def grade(self, group: Group) -> Group:
        """As `Grader.grade`."""
        return (await self._visit([_Call("grade", self._grader.grade, group)]))[0]

    async def verdicts(self, group: Group) -> Group:
        """As `Grader.verdicts`."""
        return (await self._visit([_Call("verdicts", self._grader.verdicts, group)]))[0]

    def _request(self, request: Request, sampling: Sampling) -> _Call:
        async def work(items: list[Request]) -> list[Completion]:
            return await self._engine.generate(items, sampling=sampling)

        return _Call(str(astuple(sampling)), work, request)

    async def _counted(self, search: Coroutine[Any, Any, T]) -> T:
        found = await search
        self._live -= 1
        self._settle()
        return found

    async def _visit(self, calls: list[_Call]) -> list[Any]:
        """What calls come to, once everybody waits."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((calls, done))
        self._settle()
        await done
        return [call.found for call in calls]

    def _settle(self) -> None:
        """Make the calls once everybody waits."""
        if self._waiting and len(self._waiting) == self._live:
            assert self._errands is not None, "calls are made by searches that run here"
            visits, self._waiting = self._waiting, []
            self._errands.create_task(_made(visits))


async def _made(visits: Sequence[tuple[list[_Call], asyncio.Future[None]]]) -> None:
    """Make what can be one call as one, and give each its part."""
    alike: dict[str, list[_Call]] = {}
    for call in (call for calls, _ in visits for call in calls):
        alike.setdefault(call.key, []).append(call)
    for calls in alike.values():
        found = await calls[0].work([call.item for call in calls])
        for call, own in zip(calls, found, strict=True):
            call.found = own
    for _, done in visits:
        done.set_result(None)
