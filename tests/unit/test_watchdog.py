"""Deadlines follow a phase's own history, and a missed one is reported and raised, never waited out."""

from __future__ import annotations

import asyncio
import time

import pytest

from rlhf.core.errors import ConfigError, LostError
from rlhf.runtime.watchdog import Deadlines, Missed, Watchdog


async def ignored(missed: Missed) -> None:
    """Nobody is told."""


async def after(seconds: float, answer: str = "here") -> str:
    await asyncio.sleep(seconds)
    return answer


def test_an_answer_in_time_is_passed_on_and_remembered() -> None:
    async def work() -> None:
        watch = Watchdog(Deadlines(times_longest=10, least_s=0.001, first_s=7), report=ignored)
        assert watch.deadline("gen") == 7
        assert await watch.call(after(0.05), role="engine 0", phase="gen") == "here"
        assert 0.5 <= watch.deadline("gen") < 7 and watch.deadline("sync") == 7

    asyncio.run(work())


def test_a_short_phase_still_has_the_least_deadline() -> None:
    async def work() -> None:
        watch = Watchdog(Deadlines(least_s=3), report=ignored)
        await watch.call(after(0), role="engine 0", phase="gen")
        assert watch.deadline("gen") == 3

    asyncio.run(work())


def test_a_missed_deadline_names_role_phase_and_peer_and_ends_in_time() -> None:
    told: list[Missed] = []

    async def note(missed: Missed) -> None:
        told.append(missed)

    async def work() -> None:
        watch = Watchdog(Deadlines(first_s=0.1), report=note)
        await watch.call(after(30), role="rank 1", phase="backward", peer="rank 0")

    start = time.monotonic()
    with pytest.raises(LostError, match=r"rank 1, which waits for rank 0 in 0 s of phase 'backward'"):
        asyncio.run(work())
    assert time.monotonic() - start < 5 and [m.role for m in told] == ["rank 1"]


def test_an_error_of_the_call_is_its_own() -> None:
    async def broken() -> None:
        raise KeyError("weights")

    async def work() -> None:
        await Watchdog(Deadlines(), report=ignored).call(broken(), role="engine 0", phase="gen")

    with pytest.raises(KeyError):
        asyncio.run(work())


@pytest.mark.parametrize("name", ["times_longest", "least_s", "first_s"])
def test_a_deadline_leaves_some_time(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Deadlines(**{name: 0})
