"""Model states as planned against the tensors that two real ranks hold, and against DeepSpeed's own estimate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import live_states
import pytest
import tiny_model
from live_states import Held
from pair import Ranks
from zero_work import Setup

from rlhf.runtime import memory
from rlhf.runtime.memory import Moment, Part, Zero

pytestmark = pytest.mark.cluster
pytest.importorskip("deepspeed", reason="needs the extra `cluster`")

BUCKET = 2**20
WIDE = {"hidden_size": 256, "intermediate_size": 704, "head_dim": 64, "num_hidden_layers": 3}
NUMBERS = {"float32": memory.FLOAT32, "bfloat16": memory.SUMMED_BFLOAT16}


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two million parameters, so that batches and activations weigh nothing beside them."""
    folder = tmp_path_factory.mktemp("wide")
    tiny_model.model("llama", **WIDE).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def parameters() -> int:
    return sum(p.numel() for p in tiny_model.model("llama", **WIDE).parameters())


def measured(two: Ranks, folder: Path, stage: int, precision: str, offload: str = "none") -> Held:
    backend = {"name": "deepspeed_backend", "zero_stage": stage, "bucket_mib": 1, "whole_below": 0}
    setup = Setup(folder, backend | {"offload_optimizer": offload}, optimizer={"precision": precision})
    held: Held = two.run(live_states.held, 2, setup)[0]
    return held


def planned(parameters: int, stage: int, precision: str, *, offload: bool = False) -> list[Part]:
    # Gradients of 16-bit weights travel in float32, twice the bytes that the bucket's numbers are counted from.
    bucket = BUCKET if precision == "float32" else 2 * BUCKET
    zero = Zero(stage=stage, ranks=2, offload_optimizer=offload, bucket=bucket, gathered=0)
    return memory.model_states(parameters, NUMBERS[precision], zero)


def everywhere(parts: list[Part], moment: Moment) -> float:
    return sum(memory.total(parts, moment, on_host=host) for host in (False, True))


@pytest.mark.parametrize(
    ("stage", "precision"),
    [(1, "float32"), (1, "bfloat16"), (2, "bfloat16"), (3, "bfloat16")],
)
def test_a_rank_holds_what_was_planned(stage: int, precision: str, two: Ranks, folder: Path, parameters: int) -> None:
    held, parts = measured(two, folder, stage, precision), planned(parameters, stage, precision)
    assert held.after_step == pytest.approx(everywhere(parts, Moment.ROLLOUT), rel=0.01)
    # The bucket may have been given back by then.
    training = everywhere(parts, Moment.TRAINING)
    assert 0.99 * (training - 2 * BUCKET) <= held.after_backward <= 1.01 * training


@pytest.mark.parametrize("stage", [2, 3])
def test_an_offloaded_optimizer_and_its_buffers_are_planned_for(
    stage: int, two: Ranks, folder: Path, parameters: int
) -> None:
    held = measured(two, folder, stage, "bfloat16", offload="cpu")
    training = everywhere(planned(parameters, stage, "bfloat16", offload=True), Moment.TRAINING)
    # Stage 2 has two buffers more, of the largest weight.
    assert 0.99 * training - 2 * BUCKET <= held.after_backward <= 1.01 * training + 0.35 * parameters


def test_the_estimate_of_stage_2_is_deepspeed_s_own() -> None:
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    count, ranks = 7_000_000, 8
    parts = memory.model_states(count, memory.BFLOAT16, Zero(stage=2, ranks=ranks))
    _, device = estimate_zero2_model_states_mem_needs(count, num_gpus_per_node=ranks, cpu_offload=False)
    assert memory.total(parts, Moment.UPDATE) == device
