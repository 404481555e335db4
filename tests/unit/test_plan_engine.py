"""From the config of an engine to what it holds, and the words for what has no room."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.core.errors import ConfigError
from rlhf.loops import plan, plan_engine, settings
from rlhf.loops.plan_engine import Place
from rlhf.loops.plan_memory import Lengths
from rlhf.runtime import memory
from rlhf.runtime.memory import GIB, Moment, Shape

ROOT = Path(__file__).parents[2]
LENGTHS = Lengths(prompt_mean=10.0, prompt_max=36, solution_max=40)
TOKENS = 36 + 64
SHAPE = Shape(
    parameters=2**30,
    layers=16,
    hidden=1024,
    intermediate=4096,
    heads=8,
    kv_heads=2,
    head_dim=128,
    vocabulary=1000,
    positions=4096,
    bytes_per_value=2,
)
"""Weights of 2 GiB, 16 KiB of keys and values per token."""
TOKEN = 2 * 16 * 2 * 128 * 2
CPU, GPU = Place(device="cpu", memory=None), Place(device="cuda", memory=10 * GIB)
SHARED = Place(device="cuda", memory=10 * GIB, shared=True)
VLLM = "engine.name=vllm_engine"


def sampling(*overrides: str, place: Place = CPU, engines: int = 1) -> memory.Sampling:
    experiment = settings.read(ROOT / "configs" / "quickstart.yaml", overrides)
    return plan_engine.sampling(experiment.stages, experiment.settings, SHAPE, LENGTHS, place=place, engines=engines)


def sizes(*overrides: str, place: Place) -> dict[str, float]:
    return {part.name: part.size for part in memory.engine(SHAPE, sampling(*overrides, place=place))}


def totals(*overrides: str, place: Place) -> list[float]:
    """In GiB, without the logits."""
    parts = memory.engine(SHAPE, sampling(*overrides, place=place))
    parts = [part for part in parts if part.name != "logits of a token"]
    return [memory.total(parts, moment) / GIB for moment in Moment]


def fixes(*overrides: str, place: Place) -> dict[str, str]:
    return {part.name: part.fix for part in memory.engine(SHAPE, sampling(*overrides, place=place)) if part.fix}


def test_the_engine_is_asked_for_the_samples_of_a_step_or_of_an_evaluation() -> None:
    many = "engine.max_batch=10000"
    assert sampling().sequences == 512
    assert sampling(many).sequences == 256 * 4
    assert sampling(many, "rl.prompts_per_step=1000").sequences == 8000
    assert sampling(many, "rl.prompts_per_step=2000").sequences == 10_000
    assert sampling(many, engines=3).sequences == 342
    assert sampling(VLLM).sequences == 256
    assert sampling(VLLM, "engine.max_num_seqs=5000").sequences == 1024
    assert sampling(VLLM, "engine.max_num_seqs=5000", engines=3).sequences == 342


def test_an_engine_without_a_batch_holds_no_cache() -> None:
    played = ["engine.name=scripted_engine", "engine.default=[x]"]
    assert totals(*played, place=CPU) == [2, 2, 2, 2]
    plan_engine.check(plan_engine.room(SHAPE, sampling(*played)))


def test_vllm_takes_its_share_of_a_gpu_and_caches_with_what_the_weights_leave() -> None:
    assert sizes(VLLM, place=GPU) == {"weights": 2 * GIB, "keys and values": int(0.9 * 10 * GIB) - 2 * GIB}
    assert totals(VLLM, "engine.gpu_memory_utilization=0.5", place=GPU) == [5, 5, 5, 5]
    assert fixes(VLLM, place=GPU) == {"keys and values": "lower engine.gpu_memory_utilization"}


def test_vllm_takes_a_cache_of_the_size_given_whatever_the_share() -> None:
    found = sizes(VLLM, "engine.kv_cache_gib=1.5", "engine.gpu_memory_utilization=0.1", place=GPU)
    assert found == {
        "weights": 2 * GIB,
        "keys and values": 1.5 * GIB,
        "logits of a token": 256 * 1000 * (4 * 4 + 2),
    }
    assert fixes(VLLM, "engine.kv_cache_gib=1.5", place=GPU) == {
        "weights": "raise engine.tensor_parallel",
        "keys and values": "lower engine.kv_cache_gib",
        "logits of a token": "lower engine.max_num_seqs",
    }


@pytest.mark.parametrize(("overrides", "gib"), [((), 1), (("engine.kv_cache_gib=3",), 3)])
def test_vllm_on_a_cpu_takes_one_gib_or_what_is_given_and_never_sleeps(overrides: tuple[str, ...], gib: int) -> None:
    place = Place(device="cpu", memory=None, shared=True)
    assert totals(VLLM, *overrides, place=place) == [2 + gib] * 4
    # Two processes on one machine split the weights and have a cache each.
    assert totals(VLLM, "engine.tensor_parallel=2", *overrides, place=place) == [2 + 2 * gib] * 4


def test_vllm_splits_weights_over_gpus_and_each_has_its_own_cache() -> None:
    split = [VLLM, "engine.tensor_parallel=4"]
    assert totals(*split, "engine.kv_cache_gib=3", place=GPU) == [3.5] * 4
    assert sizes(*split, "engine.gpu_memory_utilization=0.5", place=GPU)["keys and values"] == 4.5 * GIB
    # Two heads of keys and values on four GPUs: each holds one.
    assert memory.cached_sequence(SHAPE, sampling(*split, place=GPU)) == TOKENS * TOKEN / 2


@pytest.mark.parametrize(("dtype", "gib"), [("auto", 2), ("bfloat16", 2), ("float16", 2), ("float32", 4)])
def test_vllm_has_a_type_of_its_own(dtype: str, gib: int) -> None:
    chosen = f"engine.dtype={dtype}"
    assert sizes(VLLM, chosen, place=GPU)["weights"] == gib * GIB
    assert memory.cached_sequence(SHAPE, sampling(VLLM, chosen, place=GPU)) == TOKENS * TOKEN * gib / 2


@pytest.mark.parametrize(
    ("level", "place", "device", "host"),
    [(0, SHARED, [9, 9, 9, 9], 0), (1, SHARED, [9, 0, 0, 9], 2), (2, SHARED, [9, 0, 0, 9], 0), (1, GPU, [9] * 4, 0)],
)
def test_vllm_that_shares_its_gpu_needs_memory_only_while_awake_and_keeps_weights_on_the_host_at_level_1(
    level: int, place: Place, device: list[int], host: int
) -> None:
    chosen = (VLLM, f"engine.sleep_level={level}")
    assert totals(*chosen, place=place) == pytest.approx(device)
    parts = memory.engine(SHAPE, sampling(*chosen, place=place))
    on_host = [memory.total(parts, moment, on_host=True) / GIB for moment in Moment]
    assert on_host == [0, host, host, 0]


def test_the_embedded_engine_does_not_sleep_nor_split() -> None:
    assert totals(place=SHARED)[1] == 2
    assert sampling(place=SHARED).tensor_parallel == 1


def test_a_gpu_of_unknown_memory_holds_at_least_what_is_asked() -> None:
    unknown = Place(device="cuda", memory=None)
    assert sizes(VLLM, place=unknown)["keys and values"] == 256 * TOKENS * TOKEN
    assert plan_engine.room(SHAPE, sampling(VLLM, place=unknown)).fits == 256


def test_room_is_what_the_cache_holds() -> None:
    # 1 GiB holds 655 sequences of 100 tokens at 16 KiB each.
    cache = [VLLM, "engine.kv_cache_gib=1", "engine.max_num_seqs=1000"]
    room = plan_engine.room(SHAPE, sampling(*cache, place=GPU))
    assert (room.fits, room.asked) == (655, 1000)
    [remark] = plan_engine.remarks(room)
    assert "room for 655 of 1000 sequences" in remark
    plan_engine.check(room)
    roomy = plan_engine.room(SHAPE, sampling(VLLM, place=GPU))
    assert (roomy.fits, list(plan_engine.remarks(roomy))) == (256, [])


def test_the_longest_sequence_of_the_model_must_fit_the_cache_or_be_bounded() -> None:
    # 4096 positions take 64 MiB.
    small = [VLLM, "engine.kv_cache_gib=0.05"]
    with pytest.raises(ConfigError) as caught:
        plan_engine.check(plan_engine.room(SHAPE, sampling(*small, place=GPU)))
    assert "no room for the keys and values of one sequence of 4096 tokens" in caught.value.problem
    assert caught.value.fix == (
        "raise engine.kv_cache_gib, or raise engine.tensor_parallel, or set engine.max_model_len=100"
    )
    # 0.05 GiB hold 3276 tokens: 32 sequences.
    bounded = plan_engine.room(SHAPE, sampling(*small, "engine.max_model_len=3276", place=GPU))
    assert bounded.fits == 32
    plan_engine.check(bounded)


def test_weights_that_fill_the_share_of_a_gpu_leave_no_room() -> None:
    with pytest.raises(ConfigError, match=r"raise engine\.gpu_memory_utilization"):
        plan_engine.check(plan_engine.room(SHAPE, sampling(VLLM, "engine.gpu_memory_utilization=0.2", place=GPU)))


def test_a_run_in_one_process_is_planned_with_what_vllm_takes() -> None:
    def plans(*overrides: str) -> None:
        plan.check(settings.read(ROOT / "configs" / "micro.yaml", [VLLM, "task.train_size=64", *overrides]))

    plans("engine.kv_cache_gib=0.5")
    with pytest.raises(ConfigError, match=r"does not fit.*\n.*lower engine\.kv_cache_gib"):
        plans("engine.kv_cache_gib=100000")
    with pytest.raises(ConfigError, match=r"no room for.*\n.*raise engine\.kv_cache_gib"):
        plans("engine.kv_cache_gib=0.00001")
