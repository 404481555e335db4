"""The buffer: how far ahead it makes, in which order it hands out, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc
import random

import pytest

from rollout.buffer import Buffer


def test_nothing_is_made_before_it_is_asked_for_when_nothing_may_be_ahead() -> None:
    made: list[int] = []

    async def make(step: int) -> int:
        made.append(step)
        return step * 10

    async def work() -> None:
        async with Buffer(make, range(1, 4), ahead=0) as batches:
            for step in range(1, 4):
                await asyncio.sleep(0)
                assert made == list(range(1, step)) and (batches.ready, batches.making) == (0, 0)
                assert await batches.take() == step * 10
                assert asyncio.all_tasks() == {asyncio.current_task()}, "it was made in the caller's own task"

    asyncio.run(work())


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_batches_come_in_order_and_never_more_are_made_than_may_be_ahead(ahead: int) -> None:
    draw, taken = random.Random(ahead), 0
    furthest: dict[int, int] = {}

    async def make(step: int) -> int:
        furthest[step] = taken
        for _ in range(draw.randrange(12)):
            await asyncio.sleep(0)
        return step

    async def work() -> None:
        nonlocal taken
        async with Buffer(make, range(1, 41), ahead=ahead) as batches:
            for step in range(1, 41):
                assert await batches.take() == step
                taken = step
                for _ in range(draw.randrange(12)):
                    await asyncio.sleep(0)
                    assert batches.ready + batches.making <= ahead

    asyncio.run(work())
    assert all(step - before <= ahead + 1 for step, before in furthest.items())
    # Step s+k starts when the caller asks for step s, so that s-1 is the last one that has been taken by then.
    assert [step - before for step, before in furthest.items()][ahead:] == [ahead + 1] * (40 - ahead)


def test_what_was_started_runs_before_a_caller_that_never_waits_goes_on() -> None:
    """The local runtime computes in the caller's thread: whatever has not begun by then would begin a step later."""
    begun: list[int] = []

    async def make(step: int) -> int:
        begun.append(step)
        return step

    async def work() -> None:
        async with Buffer(make, range(1, 5), ahead=1) as batches:
            for step, expected in enumerate(([1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]), start=1):
                assert await batches.take() == step
                assert begun == expected

    asyncio.run(work())


def test_an_error_shows_at_the_take_of_its_step() -> None:
    async def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        await asyncio.sleep(0.001)
        return step

    async def work() -> None:
        async with Buffer(make, range(1, 5), ahead=2) as batches:
            assert await batches.take() == 1
            with pytest.raises(ValueError, match="step 2"):
                await batches.take()

    asyncio.run(work())


@pytest.mark.parametrize("ahead", [0, 3])
def test_no_task_outlives_the_context_and_no_error_is_complained_about(
    ahead: int, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []

    async def make(step: int) -> int:
        if step == 3:
            raise ValueError("nobody takes this")
        try:
            await asyncio.sleep(0.001 if step == 1 else 3600)
        finally:
            ended.append(step)
        return step

    async def work() -> None:
        with pytest.raises(KeyError):
            async with Buffer(make, range(1, 9), ahead=ahead) as batches:
                await batches.take()
                raise KeyError
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())
    gc.collect()
    assert ended == ([1, 2, 4] if ahead else [1])
    assert not caplog.records


def test_a_cancelled_take_cancels_what_it_waits_for() -> None:
    async def make(step: int) -> int:
        await asyncio.sleep(3600)
        return step

    async def work() -> None:
        async def take() -> None:
            async with Buffer(make, range(1, 9), ahead=2) as batches:
                await batches.take()

        task = asyncio.create_task(take())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())
