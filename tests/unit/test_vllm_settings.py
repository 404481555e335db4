"""What the vLLM engine is told, and what it is asked for, where no vLLM is needed to know it."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling
from rlhf.core.types import Request, StopReason
from rlhf.sync.vllm_transfer import rank_offset
from rollout.vllm_engine import Config
from rollout.vllm_requests import Job, aborted

REQUESTS = [Request(id=str(i), prompt_tokens=(1, 2), seed=i) for i in range(3)]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"tensor_parallel": 0}, "tensor_parallel"),
        ({"max_model_len": 1}, "max_model_len"),
        ({"dtype": "float64"}, "dtype"),
        ({"gpu_memory_utilization": 0.0}, "gpu_memory_utilization"),
        ({"gpu_memory_utilization": 1.1}, "gpu_memory_utilization"),
        ({"kv_cache_gib": 0.0}, "kv_cache_gib"),
        ({"sleep_level": 3}, "sleep_level"),
        ({"weight_transfer": "carrier"}, "weight_transfer"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == field


def test_a_job_is_done_with_its_last_completion_and_keeps_the_order_of_its_requests() -> None:
    job = Job(REQUESTS, Sampling())
    for index in (2, 0):
        job.put(index, aborted(REQUESTS[index], version=7))
    assert not job.done.done()
    job.put(1, aborted(REQUESTS[1], version=7))
    done = job.done.result(0)
    assert [c.request_id for c in done] == ["0", "1", "2"]
    assert {(c.stop, c.tokens, c.text, c.policy_version) for c in done} == {(StopReason.ABORTED, (), "", 7)}


def test_a_job_that_failed_stays_failed() -> None:
    job = Job(REQUESTS, Sampling())
    job.fail(MemoryError("full"))
    job.fail(RuntimeError("closed"))
    with pytest.raises(MemoryError):
        job.done.result(0)


def test_a_temperature_that_vllm_would_change_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes 0\.001 for 0\.01") as caught:
        Job(REQUESTS, Sampling(temperature=0.001))
    assert caught.value.where == "sampling.temperature"
    for temperature in (0.0, 0.01, 1.0):
        Job(REQUESTS, Sampling(temperature=temperature))


def test_engines_take_consecutive_ranks_of_one_group() -> None:
    info = {"master_address": "10.0.0.1", "rank_offset": 1, "world_size": 5}
    assert rank_offset(info, workers_before=0) == info
    assert rank_offset(info, workers_before=2) == info | {"rank_offset": 3}
    assert rank_offset({"pid": 1}, workers_before=2) == {"pid": 1}
