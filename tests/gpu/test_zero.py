"""ZeRO in bfloat16 on one GPU: near float32, and exact across a checkpoint. Skipped without a CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
import zero_work
from zero_work import Setup

pytest.importorskip("deepspeed", reason="needs the extra `cluster`")

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("offload", [{}, {"offload_optimizer": "cpu"}], ids=["", "offload"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bfloat16_follows_float32_and_goes_on_from_a_checkpoint(
    stage: int, offload: dict[str, Any], tmp_path: Path
) -> None:
    tiny_model.model("llama").save_pretrained(tmp_path / "model")
    rate = {"lr": 5e-4}
    plain = Setup(tmp_path / "model", {"name": "torch_backend"}, optimizer=rate)
    exact = zero_work.trained(0, 1, plain, range(4))
    backend: dict[str, Any] = {"name": "deepspeed_backend", "zero_stage": stage, "whole_below": 0, **offload}
    setup = Setup(tmp_path / "model", backend, device="cuda", optimizer=rate)
    whole = zero_work.trained(0, 1, setup, range(4))
    assert whole.norms == pytest.approx(exact.norms, rel=0.1)
    for name, tensor in whole.weights.items():
        assert tensor.dtype == torch.bfloat16 and tensor.is_cuda
        torch.testing.assert_close(tensor.float().cpu(), exact.weights[name], atol=1e-2, rtol=1e-2)
    zero_work.saved(0, 1, setup, range(2), tmp_path / "half")
    rest = zero_work.continued(0, 1, setup, tmp_path / "half", range(2, 4))
    for name, tensor in whole.weights.items():
        torch.testing.assert_close(rest.weights[name], tensor, atol=1e-2, rtol=1e-2)
