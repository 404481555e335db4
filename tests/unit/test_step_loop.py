"""One thread owns the sampler: nothing touches it during a step, pauses hold, and nobody waits in vain."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from rollout.step_loop import StepLoop

WAIT_S = 10


class Counting:
    """Counts down jobs, one unit of each per step; notices who touches it while it steps."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.jobs: list[tuple[int, Future[int]]] = []
        self.steps = 0
        self.closed = 0
        self.broken: Exception | None = None
        self.stepping = False

    def busy(self) -> bool:
        return bool(self.jobs)

    def step(self) -> None:
        assert threading.current_thread() is self.thread
        if self.broken is not None:
            raise self.broken
        self.stepping = True
        time.sleep(0.001)
        self.steps += 1
        self.jobs = [(left - 1, done) for left, done in self.jobs]
        for left, done in self.jobs:
            if not left:
                done.set_result(self.steps)
        self.jobs = [job for job in self.jobs if job[0]]
        self.stepping = False

    def fail(self, error: BaseException) -> None:
        for _, done in self.jobs:
            done.set_exception(error)
        self.jobs = []

    def close(self) -> None:
        self.closed += 1

    def add(self, units: int) -> Future[int]:
        assert threading.current_thread() is self.thread and not self.stepping
        done: Future[int] = Future()
        self.jobs.append((units, done))
        return done


def loop(make: Callable[[], Counting] = Counting) -> StepLoop[Counting]:
    return StepLoop(make, name="test")


def work(made: StepLoop[Counting], units: int) -> Future[int]:
    return made.call(lambda sampler: sampler.add(units))


def test_it_steps_until_the_work_is_done_and_then_waits() -> None:
    made = loop()
    assert work(made, 5).result(WAIT_S) == 5
    assert work(made, 3).result(WAIT_S) == 8
    assert made.call(lambda sampler: sampler.steps) == 8
    made.close()


def test_calls_from_many_threads_come_between_steps() -> None:
    made = loop()
    results: list[int] = []

    def caller() -> None:
        results.extend(work(made, 1 + i % 7).result(WAIT_S) for i in range(20))

    threads = [threading.Thread(target=caller) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(results) == 160
    made.close()


def test_a_call_is_not_held_up_by_work_without_end() -> None:
    made = loop()
    work(made, 10**9)
    began = time.monotonic()
    for _ in range(20):
        made.call(lambda sampler: sampler.steps)
    assert time.monotonic() - began < WAIT_S
    made.close()


def test_no_step_runs_while_paused_and_what_has_begun_goes_on() -> None:
    made = loop()
    done = work(made, 30)
    made.pause()
    made.pause()
    at = made.call(lambda sampler: sampler.steps)
    late = work(made, 1)
    time.sleep(0.05)
    assert made.call(lambda sampler: sampler.steps) == at and not done.done() and not late.done()
    made.resume()
    assert done.result(WAIT_S) == 30 and late.result(WAIT_S) == at + 1
    made.close()


def test_what_a_call_raises_is_raised_and_ends_nothing() -> None:
    made = loop()

    def wrong(_: Counting) -> None:
        raise KeyError("w")

    with pytest.raises(KeyError):
        made.call(wrong)
    assert work(made, 1).result(WAIT_S) == 1
    made.close()


def test_a_step_that_fails_is_told_to_all_who_wait_and_to_all_who_come() -> None:
    made = loop()
    made.pause()
    waiting = [work(made, 3), work(made, 9)]
    made.call(lambda sampler: setattr(sampler, "broken", MemoryError("full")))
    made.resume()
    for done in waiting:
        with pytest.raises(MemoryError, match="full"):
            done.result(WAIT_S)
    with pytest.raises(MemoryError, match="full"):
        work(made, 1)
    made.close()


def test_what_making_it_raises_is_raised() -> None:
    def wrong() -> Counting:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        loop(wrong)


def test_closing_ends_the_thread_and_tells_who_waits() -> None:
    made = loop()
    sampler = made.call(lambda sampler: sampler)
    done = work(made, 10**9)
    made.close()
    made.close()
    assert not sampler.thread.is_alive() and sampler.closed == 1
    with pytest.raises(RuntimeError, match="was closed"):
        done.result(WAIT_S)
    with pytest.raises(RuntimeError, match="is closed"):
        made.call(lambda sampler: sampler.steps)


def test_the_thread_ends_with_the_last_reference() -> None:
    made = loop()
    sampler = made.call(lambda sampler: sampler)
    del made
    gc.collect()
    sampler.thread.join(WAIT_S)
    assert not sampler.thread.is_alive() and sampler.closed == 1


def test_a_call_from_the_thread_itself_is_refused_instead_of_waited_for() -> None:
    made = loop()
    with pytest.raises(AssertionError, match="wait for itself"):
        made.call(lambda _: made.call(lambda sampler: sampler.steps))
    made.close()


def test_a_process_that_ends_in_the_middle_ends() -> None:
    code = (
        "import time\nfrom rollout.step_loop import StepLoop\n"
        "class Endless:\n"
        "    def busy(self): return True\n"
        "    def step(self): time.sleep(0.01)\n"
        "    def fail(self, error): print('told')\n"
        "    def close(self): print('closed')\n"
        "loop = StepLoop(Endless, name='endless')\nloop.call(lambda sampler: None)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout.split()) == (0, ["told", "closed"]), run.stderr
