"""One thread that owns a sampler: it makes it, steps it, and between two steps does what other threads ask for.

Used by `rollout.vllm_engine`. A sampler of tokens on a GPU belongs to the thread that made it (current device, handles
of libraries), and must not be touched while it computes. So everything that concerns it is a call that this thread
runs, in order of arrival, never during a step.

It cannot deadlock: the thread waits for calls only, and no call waits for another. While paused, calls are still run.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
_END_S = 30.0
"""How long an interpreter that ends waits for the last step."""


class Stepper(Protocol):
    """What is stepped."""

    def busy(self) -> bool:
        """Whether a step would get anything done."""
        ...

    def step(self) -> None: ...

    def fail(self, error: BaseException) -> None:
        """Tell everybody who waits for a result that none will come."""
        ...

    def close(self) -> None: ...


S = TypeVar("S", bound=Stepper)


@dataclass(frozen=True, slots=True)
class _Call:
    """Something to do with the sampler; `future` gets its result."""

    function: Callable[[Any], Any]
    future: Future[Any]


class StepLoop(Generic[S]):
    """The thread, seen from the others.

    Args:
        make: makes the sampler, on the thread; what it raises is raised here.
        name: of the thread.
    """

    def __init__(self, make: Callable[[], S], *, name: str) -> None:
        calls: SimpleQueue[_Call | None] = SimpleQueue()
        ready: Future[None] = Future()
        state = _State()
        # The thread knows nothing of this object, so that it ends when this object does.
        thread = threading.Thread(target=_run, args=(make, calls, ready, state), name=name, daemon=True)
        thread.start()
        ready.result()
        self._calls, self._thread, self._state = calls, thread, state
        # A daemon thread that is still inside a library when the interpreter ends would bring the process down.
        self._end = weakref.finalize(self, _end, calls, thread)

    def call(self, function: Callable[[S], T]) -> T:
        """Run a function on the thread, between two steps, and wait for it.

        Raises:
            RuntimeError: the loop is closed. What the function raises, or what a step raised earlier.
        """
        assert threading.current_thread() is not self._thread, "the thread would wait for itself"
        return self.post(function).result()

    def post(self, function: Callable[[S], T]) -> Future[T]:
        """Have a function run on the thread, without waiting for it."""
        future: Future[T] = Future()
        if not self._end.alive:
            raise RuntimeError("the engine is closed")
        self._calls.put(_Call(function, future))
        return future

    def pause(self) -> None:
        """Stop stepping; no step is running when this returns. Idempotent."""
        self.call(lambda _: self._state.set(paused=True))

    def resume(self) -> None:
        """Step again. Idempotent."""
        self.call(lambda _: self._state.set(paused=False))

    def close(self) -> None:
        """End the thread after the current step, and the sampler with it. Idempotent."""
        self._end()


class _State:
    """What only the thread reads and writes."""

    def __init__(self) -> None:
        self.paused = False

    def set(self, *, paused: bool) -> None:
        self.paused = paused


def _end(calls: SimpleQueue[_Call | None], thread: threading.Thread) -> None:
    calls.put(None)
    if threading.current_thread() is not thread:
        thread.join(_END_S)


def _run(make: Callable[[], Stepper], calls: SimpleQueue[_Call | None], ready: Future[None], state: _State) -> None:
    try:
        sampler = make()
    except BaseException as error:
        ready.set_exception(error)
        return
    ready.set_result(None)
    failure: BaseException | None = None
    while True:
        stepping = failure is None and not state.paused and sampler.busy()
        try:
            call = calls.get(block=not stepping)
        except Empty:
            failure = _step(sampler)
            continue
        if call is None:
            break
        _answer(call, sampler, failure)
        # It may hold tensors, which would stay alive while this waits for the next one.
        del call
    sampler.fail(RuntimeError("the engine was closed"))
    sampler.close()
    while not calls.empty():
        if (late := calls.get()) is not None:
            late.future.set_exception(RuntimeError("the engine is closed"))


def _step(sampler: Stepper) -> BaseException | None:
    try:
        sampler.step()
    except Exception as error:
        sampler.fail(error)
        return error
    return None


def _answer(call: _Call, sampler: Stepper, failure: BaseException | None) -> None:
    if failure is not None:
        call.future.set_exception(failure)
        return
    try:
        result = call.function(sampler)
    except BaseException as error:
        call.future.set_exception(error)
    else:
        call.future.set_result(result)
