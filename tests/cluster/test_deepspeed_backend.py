"""ZeRO on two real ranks against plain torch in this process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import tiny_model
import torch
import zero_work
from pair import Ranks
from zero_work import LOSSES, Setup, Trained

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")

pytestmark = pytest.mark.cluster

STAGES = [0, 1, 2, 3]
UPDATES = range(5)


def zero(stage: int, **settings: object) -> dict[str, object]:
    """Everything is sharded that can be, however small."""
    return {"name": "deepspeed_backend", "zero_stage": stage, "bucket_mib": 1, "whole_below": 0, **settings}


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    tiny_model.model("llama").save_pretrained(folder)
    return folder


def assert_same(found: Trained, expected: Trained, *, atol: float = 1e-5) -> None:
    assert found.weights.keys() == expected.weights.keys()
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(
            found.weights[name], tensor, atol=atol, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
        )


@cache
def reference(folder: Path, loss: str) -> Trained:
    """Plain torch with all batches in one process."""
    return zero_work.trained(0, 1, Setup(folder, {"name": "torch_backend"}, loss), UPDATES)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_train_as_plain_torch_does(two: Ranks, llama: Path, stage: int, loss: str) -> None:
    expected = reference(llama, loss)
    before = dict(tiny_model.model("llama").named_parameters())
    assert all((before[name] - w).abs().max() > 1e-3 for name, w in expected.weights.items()), "updates must matter"
    parts = two.run(zero_work.trained, 2, Setup(llama, zero(stage), loss), UPDATES)
    for part in parts:
        assert_same(part, expected)
        assert part.norms == pytest.approx(expected.norms, rel=1e-5)
        assert part.rates == expected.rates
    assert parts[0].norms == parts[1].norms
    for found, wanted in zip(zero_work.merged(parts), zero_work.merged([expected]), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6)
