"""What can be asked of DeepSpeed, and what it is then told; nothing here needs it to be installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import tiny_model
import torch

from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError, UserError
from rlhf.learner import optimizer
from rlhf.learner.backend import BackendSpec
from rlhf.learner.backends import deepspeed_backend
from rlhf.learner.backends.deepspeed_backend import Config, settings
from rlhf.learner.backends.torch_backend import TorchBackend


def spec(**changes: Any) -> BackendSpec:
    values: dict[str, Any] = {"load": opened, "dtype": "auto", "device": "cpu", "prepare": everything}
    return BackendSpec(**values | {"optimizer": optimizer.Config(grad_clip=0.7)} | changes)


def everything(model: Any) -> None:
    model.requires_grad_(True)


def opened(dtype: str) -> Any:
    return tiny_model.model(dtype=vars(torch)[dtype])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"zero_stage": 4}, "zero_stage"),
        ({"zero_stage": 3, "offload_parameters": "nvme"}, "offload_parameters"),
        ({"zero_stage": 0, "offload_optimizer": "cpu"}, "offload_optimizer"),
        ({"zero_stage": 2, "offload_parameters": "cpu"}, "offload_parameters"),
        ({"bucket_mib": 0}, "bucket_mib"),
        ({"whole_below": -1}, "whole_below"),
    ],
)
def test_impossible_values_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_component("rlhf.learner.backends", {"name": "deepspeed_backend", **wrong}, "rl.learner.backend")
    assert caught.value.where == f"rl.learner.backend.{field}"


def test_settings_say_what_is_sharded_and_clipped() -> None:
    found = settings(Config(zero_stage=3, bucket_mib=4, whole_below=9), spec(), narrow=False, device="cpu")
    assert found["gradient_clipping"] == 0.7 and "bf16" not in found
    zero = found["zero_optimization"]
    assert (zero["stage"], zero["reduce_bucket_size"], zero["stage3_param_persistence_threshold"]) == (3, 2**20, 9)
    assert not {"offload_optimizer", "offload_param"} & set(zero)


def test_bfloat16_adds_up_in_float32() -> None:
    found = settings(Config(bucket_mib=4), spec(), narrow=True, device="cuda")
    assert found["bf16"] == {"enabled": True} and found["zero_optimization"]["reduce_bucket_size"] == 2**21
    assert found["data_types"]["grad_accum_dtype"] == found["communication_data_type"] == "fp32"


def test_offloading_is_pinned_on_a_gpu_and_a_frozen_model_has_no_optimizer_to_offload() -> None:
    cfg = Config(zero_stage=3, offload_optimizer="cpu", offload_parameters="cpu")
    zero = settings(cfg, spec(), narrow=True, device="cuda")["zero_optimization"]
    assert zero["offload_optimizer"] == zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    frozen = settings(cfg, spec(prepare=None), narrow=False, device="cpu")["zero_optimization"]
    assert frozen["offload_param"] == {"device": "cpu", "pin_memory": False} and "offload_optimizer" not in frozen


@pytest.mark.parametrize(("stage", "trains"), [(0, True), (0, False), (2, False)])
@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_what_is_not_sharded_is_plain_torch(stage: int, trains: bool, precision: str) -> None:
    chosen = spec(prepare=everything if trains else None, optimizer=optimizer.Config(precision=precision))
    made = deepspeed_backend.build(Config(zero_stage=stage), chosen)
    assert isinstance(made, TorchBackend)
    assert all(p.requires_grad == trains for p in made.model.parameters())
    # A reference computes as the policy does, which at stages 1 to 3 has weights in the type it computes with.
    narrow = precision == "bfloat16" and stage > 0
    assert made.model.dtype == (torch.bfloat16 if narrow else torch.float32)


def test_float64_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.dtype: deepspeed_backend computes in float32 and bfloat16"):
        deepspeed_backend.build(Config(), spec(dtype="float64"))


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="DeepSpeed is installed")
def test_without_deepspeed_the_error_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"learner\.backend: DeepSpeed cannot be imported.*\n.*`cluster`"):
        deepspeed_backend.build(Config(), spec())
