"""Several engines as one: who gets which requests, and what happens when an engine dies.

A runtime makes a pool of the handles of its engines; the loops see one `EngineHandle`. Requests of one prompt go to one
engine, whose prefix cache then holds that prompt, and are a call of their own, so that a slow group holds up no other.
An engine has at most `in_flight` requests; what does not fit waits here, first come, first served. A call to an engine
that raises `LostError` is made again elsewhere, whole: its completions died with it, so that nothing is sampled twice.

Between `pause` and `resume` no call starts, and what an engine has begun waits in it. `pause` waits for replacements
under way, so that only an engine that dies just then joins later; it has no requests that would have to wait.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.core.errors import LostError
from rlhf.core.protocols import EngineHandle
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request

if TYPE_CHECKING:
    from torch import Tensor

_REMEMBERED = 2**16
"""Prompts whose engine is remembered, at most."""

Replace = Callable[[int], Awaitable[EngineHandle | None]]
"""Starts an engine in the place of a lost one, with the weights that the others hold; None gives the place up."""


@dataclass(slots=True, eq=False)
class _Place:
    """Where an engine is, or will be once its replacement has started."""

    index: int
    engine: EngineHandle | None
    load: int = 0
    """Requests of calls under way."""
    starting: asyncio.Task[None] | None = None

    def takes(self, size: int, *, limit: int) -> bool:
        """Whether that many more requests fit; a call larger than the limit goes to an engine without any."""
        return self.engine is not None and (not self.load or self.load + size <= limit)


@dataclass(slots=True, eq=False)
class _Turn:
    """A call that waits for an engine with room."""

    size: int
    prompt: int
    """Hash of its tokens."""
    place: asyncio.Future[_Place]


class EnginePool:
    """Implements `rlhf.core.protocols.EngineHandle`.

    Args:
        engines: one or more.
        replace: starts an engine for the place of a lost one. What it raises ends every call.
        in_flight: requests per engine, at most.
        per_call: requests in one call, as far as whole groups and all engines allow: 1 for engines that batch
            continuously; for one that decodes a call at a time, what it decodes together.
        attempts: engines that may be lost under the same call before the call is given up.
    """

    def __init__(
        self,
        engines: Sequence[EngineHandle],
        *,
        replace: Replace,
        in_flight: int = 256,
        per_call: int = 1,
        attempts: int = 3,
    ) -> None:
        assert engines and in_flight > 0 and per_call > 0 and attempts > 0, "a pool that could never answer"
        self._places = [_Place(index, engine) for index, engine in enumerate(engines)]
        self._replace, self._limit, self._per_call, self._attempts = replace, in_flight, per_call, attempts
        self._waiting: deque[_Turn] = deque()
        self._homes: dict[int, _Place] = {}
        """By hash of a prompt: the engine that has seen it."""
        self._open = asyncio.Event()
        self._open.set()
        self._broken: BaseException | None = None
        self.replaced = 0
        """Engines that were lost and replaced so far."""

    @property
    def engines(self) -> list[EngineHandle]:
        """Those that are alive; after `pause`, all there will be until `resume` unless one dies."""
        return [place.engine for place in self._places if place.engine is not None]

    async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        """See `Engine.generate`. Cancelling it cancels what is left of it.

        Raises:
            LostError: every attempt at some group lost its engine, or no engine is left. Exception: an engine's own.
        """
        calls = [asyncio.create_task(self._call(chunk, sampling)) for chunk in self._chunks(requests)]
        try:
            answers = await asyncio.gather(*calls)
        except BaseException:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            raise
        done = {completion.request_id: completion for answer in answers for completion in answer}
        return [done[request.id] for request in requests]

    async def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Load the same weights into every engine; their prefix caches are worth nothing from then on."""
        held = list(tensors)
        self._homes.clear()
        await self.each(lambda engine: engine.load_weights(version, held))

    async def pause(self) -> None:
        """Pause every engine, and wait for those that are being started."""
        self._open.clear()
        await self.each(lambda engine: engine.pause())

    async def resume(self) -> None:
        """Let every engine go on."""
        await self.each(lambda engine: engine.resume())
        self._open.set()
        self._grant()

    async def each(self, act: Callable[[EngineHandle], Awaitable[None]]) -> None:
        """Do something with every engine, and with the replacement of one that is lost meanwhile."""
        done = await asyncio.gather(*(self._at(place, act) for place in list(self._places)), return_exceptions=True)
        for error in (self._broken, *done):
            if error is not None:
                raise error

    async def close(self) -> None:
        """Start no more engines. Those that run belong to whoever made them."""
        starting = [place.starting for place in self._places if place.starting is not None]
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)

    def _chunks(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """The requests of each call: one prompt's, or several prompts' up to `per_call`."""
        groups: dict[tuple[int, ...], list[Request]] = {}
        for request in requests:
            groups.setdefault(request.prompt_tokens, []).append(request)
        size = min(self._per_call, math.ceil(len(requests) / max(1, len(self._places))))
        chunk: list[Request] = []
        for group in groups.values():
            for start in range(0, len(group), self._limit):
                part = group[start : start + self._limit]
                if chunk and len(chunk) + len(part) > size:
                    yield chunk
                    chunk = []
                chunk = chunk + part
        if chunk:
            yield chunk

    async def _call(self, chunk: list[Request], sampling: Sampling) -> list[Completion]:
        """One call, made again while its engines are lost."""
        prompt, lost = hash(chunk[0].prompt_tokens), None
        for _ in range(self._attempts):
            place = await self._admit(len(chunk), prompt, first=lost is not None)
            try:
                await self._open.wait()
                if (engine := place.engine) is None:
                    raise LostError(f"engine {place.index}", "was lost before the call")
                try:
                    return await engine.generate(chunk, sampling=sampling)
                except LostError:
                    self._lose(place, engine)
                    raise
            except LostError as error:
                lost = error
            finally:
                place.load -= len(chunk)
                self._grant()
        assert lost is not None
        raise lost

    async def _admit(self, size: int, prompt: int, *, first: bool) -> _Place:
        """Wait for an engine with room; its load then counts this call. `first` goes before all that wait."""
        if self._broken is not None:
            raise self._broken
        turn = _Turn(size, prompt, asyncio.get_running_loop().create_future())
        (self._waiting.appendleft if first else self._waiting.append)(turn)
        self._grant()
        try:
            return await turn.place
        except asyncio.CancelledError:
            if not turn.place.cancelled() and turn.place.exception() is None:
                turn.place.result().load -= size
                self._grant()
            raise

    def _grant(self) -> None:
        """Give engines with room to the calls that wait, in order."""
        while self._waiting and self._open.is_set():
            turn = self._waiting[0]
            if not turn.place.done():
                place = self._best(turn)
                if place is None:
                    return
                place.load += turn.size
                turn.place.set_result(place)
            self._waiting.popleft()

    def _best(self, turn: _Turn) -> _Place | None:
        """The engine that knows the prompt, else the least loaded one; None while there is no room."""
        home = self._homes.get(turn.prompt)
        if home is not None and home.takes(turn.size, limit=self._limit):
            return home
        alive = [place for place in self._places if place.engine is not None]
        place = min(alive, key=lambda place: place.load, default=None)
        if place is None or not place.takes(turn.size, limit=self._limit):
            return None
        if len(self._homes) >= _REMEMBERED:
            del self._homes[next(iter(self._homes))]
        self._homes[turn.prompt] = place
        return place

    async def _at(self, place: _Place, act: Callable[[EngineHandle], Awaitable[None]]) -> None:
        lost = None
        for _ in range(self._attempts):
            while place.starting is not None:
                await asyncio.wait([place.starting])
            if (engine := place.engine) is None:
                return
            try:
                return await act(engine)
            except LostError as error:
                lost = error
                self._lose(place, engine)
        assert lost is not None
        raise lost

    def _lose(self, place: _Place, engine: EngineHandle) -> None:
        """Replace an engine; the first of its calls to fail does it for all of them."""
        if place.engine is engine:
            place.engine = None
            place.starting = asyncio.create_task(self._restart(place))

    async def _restart(self, place: _Place) -> None:
        try:
            place.engine = await self._replace(place.index)
            if place.engine is not None:
                self.replaced += 1
            else:
                self._places.remove(place)
            if not self._places:
                raise LostError("engine pool", "its last engine was lost and not replaced")
        except Exception as error:
            self._broken = error
            for turn in self._waiting:
                if not turn.place.done():
                    turn.place.set_exception(error)
            self._waiting.clear()
        finally:
            place.starting = None
        self._grant()
