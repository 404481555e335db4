"""What trains a part of a model, or adapters beside it, under ZeRO on real ranks; and references that follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
import zero_work
from pair import Ranks
from safetensors.torch import load_file
from torch import Tensor
from zero_work import Setup, Trained

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")
pytest.importorskip("peft", reason="needs the extra `lora`")

pytestmark = pytest.mark.cluster

TORCH = {"name": "torch_backend"}
LORA: dict[str, Any] = {"name": "lora", "r": 3, "alpha": 5}
HALF: dict[str, Any] = {"name": "half"}
UPDATES = range(4)


def zero(stage: int) -> dict[str, Any]:
    """Everything is sharded that can be, however small."""
    return {"name": "deepspeed_backend", "zero_stage": stage, "bucket_mib": 1, "whole_below": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_model.model("llama").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def two(folder: Path) -> Iterator[Ranks]:
    ranks = Ranks(2)
    ranks.run(zero_work.ready, 2, Setup(folder, zero(3)))
    yield ranks
    ranks.close()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], *, atol: float) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=atol, rtol=0, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("trainable", [LORA, HALF], ids=["lora", "half"])
def test_two_ranks_train_as_plain_torch_does(two: Ranks, folder: Path, trainable: dict[str, Any]) -> None:
    setup = Setup(folder, TORCH, trainable=trainable, optimizer={"lr": 1e-3})
    expected = zero_work.trained(0, 1, setup, UPDATES)
    before = load_file(folder / "model.safetensors")
    moved = {name for name, tensor in expected.weights.items() if (tensor - before[name]).abs().max() > 1e-3}
    assert 0.3 < len(moved) / len(before) < 0.8
    for stage in (0, 1, 2, 3):
        for part in two.run(zero_work.trained, 2, replace(setup, backend=zero(stage)), UPDATES):
            assert_same(part.weights, expected.weights, atol=1e-5)
            assert part.norms == pytest.approx(expected.norms, rel=1e-4)
            assert all(torch.equal(part.weights[name], before[name]) for name in before.keys() - moved), "frozen"


def test_adapters_go_on_elsewhere_as_if_they_had_never_stopped(two: Ranks, folder: Path, tmp_path: Path) -> None:
    setup = Setup(folder, zero(3), trainable=LORA, optimizer={"lr": 1e-3})
    two.run(zero_work.saved, 2, setup, range(3), tmp_path)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    plain = replace(setup, backend=TORCH)
    expected = zero_work.trained(0, 1, plain, UPDATES)
    parts: list[Trained] = [zero_work.continued(0, 1, plain, tmp_path, range(3, 4))]
    for stage in (1, 3):
        parts += two.run(zero_work.continued, 2, replace(setup, backend=zero(stage)), tmp_path, range(3, 4))
    for part in parts:
        assert_same(part.weights, expected.weights, atol=2e-6)


@pytest.mark.parametrize("stage", [2, 3])
def test_adapters_in_bfloat16_go_on_from_their_master_weights(
    two: Ranks, folder: Path, tmp_path: Path, stage: int
) -> None:
    narrow = {"precision": "bfloat16", "lr": 1e-3}
    setup = Setup(folder, zero(stage), trainable=LORA, optimizer=narrow)
    whole = two.run(zero_work.saved, 2, setup, range(4), tmp_path / "whole")[0]
    two.run(zero_work.saved, 2, setup, range(3), tmp_path / "part")
    part, _ = two.run(zero_work.continued, 2, setup, tmp_path / "part", range(3, 4))
    assert all(tensor.dtype == torch.bfloat16 for tensor in part.weights.values())
    assert_same(part.weights, whole.weights, atol=0)
    masters = load_file(tmp_path / "whole" / "optimizer" / "master_weights.safetensors")
    assert masters and all("lora_" in name for name in masters)


@pytest.mark.parametrize("stage", [2, 3])
def test_beside_adapters_the_model_that_was_opened_is_still_there(two: Ranks, folder: Path, stage: int) -> None:
    frozen = zero_work.make(Setup(folder, TORCH, None))
    found = two.run(zero_work.without_adapters, 2, Setup(folder, zero(stage), trainable=LORA))
    for rank, parts in enumerate(found):
        expected = frozen.logprobs(zero_work.batches_of(0, size=2)[0][rank])
        for part, wanted in zip(parts, expected, strict=True):
            torch.testing.assert_close(part, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("stage", "trainable"), [(2, {"name": "full"}), (3, LORA)], ids=["2, full", "3, lora"])
def test_a_reference_follows(two: Ranks, folder: Path, tmp_path: Path, stage: int, trainable: dict[str, Any]) -> None:
    leader = Setup(folder, TORCH, trainable=trainable, optimizer={"lr": 1e-3})
    follower = Setup(folder, TORCH, None, moves=True)
    expected = zero_work.followed(0, 1, leader, follower, 0.25, tmp_path / "plain")
    start = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    first, second = (zero_work.trained(0, 1, leader, range(n)).weights[name] for n in (1, 2))
    by_hand = 0.75 * (0.75 * start[name] + 0.25 * first) + 0.25 * second
    torch.testing.assert_close(expected[name], by_hand, atol=1e-6, rtol=0)
    setups = (replace(one, backend=zero(stage), optimizer={"lr": 1e-3}) for one in (leader, follower))
    for found in two.run(zero_work.followed, 2, *setups, 0.25, tmp_path / "two"):
        assert_same(found, expected, atol=1e-5)
    assert_same(load_file(tmp_path / "two" / "model.safetensors"), expected, atol=1e-5)
