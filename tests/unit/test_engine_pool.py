"""The pool of engines: who gets what, how much at once, and that deaths lose nothing and double nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from simulation import SimulatedEngine, turns

from rlhf.core.errors import LostError
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request
from rollout.pool import EnginePool

SAMPLING = Sampling()


def requests(prompts: Sequence[int], *, count: int = 2) -> list[Request]:
    return [
        Request(id=f"0-1-q{p}-{i}", prompt_tokens=(p, p + 1), seed=9 * p + i) for p in prompts for i in range(count)
    ]


class Mortal(SimulatedEngine):
    """Notes its calls; once it has died, every call to it ends with `LostError`."""

    def __init__(self, name: str, draw: random.Random | None = None, *, deadly: float = 0.0, longest: int = 8) -> None:
        self.draw = draw or random.Random(name)
        super().__init__(lambda: self.draw.randrange(1, longest), wait=turns)
        self.name, self.deadly, self.dead = name, deadly, False
        self.calls: list[list[Request]] = []
        self.answered: list[str] = []

    async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        self.calls.append(list(requests))
        if self.draw.random() < self.deadly:
            self.dead = True
        done = await super().generate(requests, sampling=sampling)
        if self.dead:
            raise LostError(self.name, "died")
        self.answered += [completion.request_id for completion in done]
        return done

    async def load_weights(self, version: int, tensors: Any) -> None:
        self.dead = self.dead or self.draw.random() < self.deadly
        if self.dead:
            raise LostError(self.name, "died")
        await super().load_weights(version, tensors)

    async def pause(self) -> None:
        if self.dead:
            raise LostError(self.name, "died")
        await super().pause()


async def never(place: int) -> None:
    raise AssertionError("nothing was lost")


def test_completions_come_in_the_order_of_the_requests() -> None:
    async def work() -> None:
        engines = [Mortal(str(i)) for i in range(3)]
        asked = requests(range(20))
        random.Random(0).shuffle(asked)
        done = await EnginePool(engines, replace=never).generate(asked, sampling=SAMPLING)
        assert [c.request_id for c in done] == [r.id for r in asked]
        assert all(len({r.prompt_tokens for r in call}) == 1 and len(call) == 2 for e in engines for call in e.calls)
        assert {len(e.calls) for e in engines} <= {6, 7}, "the least loaded engine is next"

    asyncio.run(work())


def test_a_prompt_goes_where_it_has_been_until_new_weights_make_that_worthless() -> None:
    async def work() -> None:
        engines = [Mortal(str(i)) for i in range(4)]
        pool = EnginePool(engines, replace=never)
        for _ in range(5):
            await pool.generate(requests(range(8)), sampling=SAMPLING)
        seen = {e.name: {r.prompt_tokens for call in e.calls for r in call} for e in engines}
        assert [len(prompts) for prompts in seen.values()] == [2, 2, 2, 2]
        await pool.pause()
        await pool.load_weights(1, [("version", torch.tensor(1))])
        await pool.resume()
        for e in engines:
            e.calls.clear()
        await pool.generate(requests(reversed(range(8))), sampling=SAMPLING)
        assert {e.name: {r.prompt_tokens for call in e.calls for r in call} for e in engines} != seen

    asyncio.run(work())


def test_an_engine_that_is_full_is_passed_over_even_for_its_own_prompt() -> None:
    async def work() -> None:
        engines = [Mortal(str(i)) for i in range(2)]
        pool = EnginePool(engines, replace=never, in_flight=2)
        await pool.generate(requests([5]), sampling=SAMPLING)
        await asyncio.gather(*(pool.generate(requests([5]), sampling=SAMPLING) for _ in range(2)))
        assert [len(e.calls) for e in engines] == [2, 1]

    asyncio.run(work())


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_no_engine_has_more_requests_than_its_limit(limit: int) -> None:
    async def work() -> None:
        engines = [Mortal(str(i)) for i in range(3)]
        pool = EnginePool(engines, replace=never, in_flight=limit)
        asked = [requests(range(10 * i, 10 * i + 10), count=4) for i in range(3)]
        done = await asyncio.gather(*(pool.generate(part, sampling=SAMPLING) for part in asked))
        assert sum(map(len, done)) == 120
        assert all(0 < e.peak <= limit for e in engines)

    asyncio.run(work())


def test_calls_are_joined_for_engines_that_decode_one_at_a_time_but_leave_none_idle() -> None:
    async def work() -> None:
        for per_call, sizes in ((16, [16, 16, 8]), (1000, [20, 20]), (1, [2] * 20)):
            engines = [Mortal(str(i)) for i in range(2)]
            pool = EnginePool(engines, replace=never, per_call=per_call)
            await pool.generate(requests(range(20)), sampling=SAMPLING)
            assert sorted((len(c) for e in engines for c in e.calls), reverse=True) == sizes

    asyncio.run(work())


def test_while_paused_no_call_starts_and_what_is_under_way_waits() -> None:
    async def work() -> None:
        engines = [SimulatedEngine(lambda: 8, wait=turns, slices=4) for _ in range(2)]
        pool = EnginePool(engines, replace=never, in_flight=2)
        job = asyncio.create_task(pool.generate(requests(range(4)), sampling=SAMPLING))
        await turns(6)
        await pool.pause()
        await turns(50)
        assert not job.done() and [e.requests for e in engines] == [2, 2]
        await pool.load_weights(3, [("version", torch.tensor(3))])
        await pool.resume()
        done = await job
        assert all(set(c.versions) == {0, 3} and sorted(c.versions) == list(c.versions) for c in done[:4])
        assert all(c.policy_version == 3 and not c.versions for c in done[4:]), "they had not been sent"

    asyncio.run(work())


def test_a_slow_group_holds_up_no_other() -> None:
    async def work() -> None:
        ended: list[str] = []

        class Slow(Mortal):
            async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
                await turns(500 if requests[0].prompt_tokens[0] == 0 else 1)
                ended.append(requests[0].id)
                return await super().generate(requests, sampling=sampling)

        pool = EnginePool([Slow("a")], replace=never, in_flight=4)
        await pool.generate(requests(range(30)), sampling=SAMPLING)
        assert ended[-1] == "0-1-q0-0" and len(ended) == 30

    asyncio.run(work())


class Cluster:
    """Makes engines that may die, and new ones in their places."""

    def __init__(self, seed: int, *, size: int, deadly: float) -> None:
        self.draw, self.deadly = random.Random(seed), deadly
        self.all: list[Mortal] = []
        self.version = 0
        self.engines = [self.start(i) for i in range(size)]

    def start(self, place: int) -> Mortal:
        engine = Mortal(f"{place}/{len(self.all)}", self.draw, deadly=self.deadly)
        engine.version = self.version
        self.all.append(engine)
        return engine

    async def replace(self, place: int) -> Mortal:
        await turns(self.draw.randrange(30))
        return self.start(place)


@pytest.mark.parametrize("seed", range(25))
def test_random_deaths_lose_no_request_and_answer_none_twice(seed: int) -> None:
    draw = random.Random(-seed)
    cluster = Cluster(seed, size=draw.randrange(1, 6), deadly=0.15)

    async def push(pool: EnginePool) -> None:
        for version in range(1, 8):
            await turns(draw.randrange(40))
            cluster.version = version
            await pool.pause()
            await pool.load_weights(version, [("version", torch.tensor(version))])
            await pool.resume()
            alive = [e for e in pool.engines if isinstance(e, Mortal)]
            assert all(e.version == version or e.dead for e in alive), "nobody samples from old weights unnoticed"

    async def work() -> None:
        pool = EnginePool(cluster.engines, replace=cluster.replace, in_flight=draw.randrange(2, 9), attempts=100)
        asked = [requests(range(40 * i, 40 * i + 40), count=3) for i in range(4)]
        calls = [pool.generate(part, sampling=SAMPLING) for part in asked]
        *answers, _ = await asyncio.gather(*calls, push(pool))
        for part, answer in zip(asked, answers, strict=True):
            assert [c.request_id for c in answer] == [r.id for r in part]
            assert all(len(c.tokens) == 4 for c in answer)
        answered = Counter(name for engine in cluster.all for name in engine.answered)
        assert set(answered.values()) == {1} and len(answered) == 480
        await pool.pause()  # which waits for the last replacements
        assert pool.replaced == len(cluster.all) - len(cluster.engines) == sum(e.dead for e in cluster.all)
        await pool.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())
    assert sum(e.dead for e in cluster.all) > 5


def test_a_group_that_every_engine_dies_of_is_given_up() -> None:
    async def work() -> None:
        cluster = Cluster(0, size=2, deadly=1.0)
        pool = EnginePool(cluster.engines, replace=cluster.replace, attempts=3)
        with pytest.raises(LostError, match="died"):
            await pool.generate(requests([1]), sampling=SAMPLING)
        assert sum(len(e.calls) for e in cluster.all) == 3
        await pool.close()

    asyncio.run(work())


def test_a_place_that_is_given_up_leaves_the_work_to_the_others() -> None:
    async def work() -> None:
        async def no(place: int) -> None:
            return None

        engines = [Mortal("fatal", deadly=1.0), Mortal("a"), Mortal("b")]
        pool = EnginePool(engines, replace=no)
        done = await pool.generate(requests(range(12)), sampling=SAMPLING)
        assert len(done) == 24 and len(pool.engines) == 2 and pool.replaced == 0
        await pool.pause()
        await pool.load_weights(1, [("version", torch.tensor(1))])
        await pool.resume()
        assert [e.version for e in engines] == [0, 1, 1]

    asyncio.run(work())


def test_losing_the_last_engine_ends_every_call() -> None:
    async def work() -> None:
        async def no(place: int) -> None:
            return None

        pool = EnginePool([Mortal("a", deadly=1.0)], replace=no, in_flight=2)
        with pytest.raises(LostError, match="its last engine was lost and not replaced"):
            await pool.generate(requests(range(12)), sampling=SAMPLING)
        with pytest.raises(LostError, match="its last engine"):
            await pool.generate(requests([1]), sampling=SAMPLING)
        with pytest.raises(LostError, match="its last engine"):
            await pool.pause()

    asyncio.run(work())


def test_what_starting_an_engine_raises_ends_every_call() -> None:
    async def work() -> None:
        async def broken(place: int) -> None:
            raise MemoryError(f"no room for engine {place}")

        pool = EnginePool([Mortal("a", deadly=1.0), Mortal("b")], replace=broken, in_flight=2)
        with pytest.raises(MemoryError, match="no room for engine 0"):
            await pool.generate(requests(range(12)), sampling=SAMPLING)

    asyncio.run(work())


@pytest.mark.parametrize("seed", range(10))
def test_a_cancelled_call_gives_its_engines_back(seed: int) -> None:
    async def work() -> None:
        draw = random.Random(seed)
        engines = [Mortal(str(i), draw) for i in range(2)]
        pool = EnginePool(engines, replace=never, in_flight=4)
        job = asyncio.create_task(pool.generate(requests(range(20)), sampling=SAMPLING))
        await turns(draw.randrange(25))
        other = asyncio.create_task(pool.generate(requests(range(50, 60)), sampling=SAMPLING))
        await turns(draw.randrange(4))
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert len(await other) == 20
        assert [e.requests for e in engines] == [0, 0]
        for e in engines:
            e.peak = 0
        await pool.generate(requests(range(100, 120)), sampling=SAMPLING)
        assert [e.peak for e in engines] == [4, 4], "there is as much room as before"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())


def test_an_engines_own_error_reaches_the_caller_and_ends_the_rest_of_the_call() -> None:
    async def work() -> None:
        class Wrong(Mortal):
            async def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
                if requests[0].prompt_tokens[0] == 7:
                    raise ValueError("prompt 7")
                return await super().generate(requests, sampling=sampling)

        engine = Wrong("a", longest=10_000)
        with pytest.raises(ValueError, match="prompt 7"):
            await EnginePool([engine], replace=never).generate(requests(range(10)), sampling=SAMPLING)
        assert engine.requests == 0 and asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(work())
