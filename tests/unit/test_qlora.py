"""QLoRA: weights in 4 bits, and what samples and is stored is made of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import adapted
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError, UserError
from rlhf.learner.learner import Config, Learner
from rlhf.models.trainable import qlora

QLORA = {"name": "qlora", "r": 3, "alpha": 5}


def opened(plain: Path, **more: object) -> Learner:
    return adapted.learner(plain, QLORA, quantization=qlora.quantization(qlora.Config(r=3, alpha=5)), **more)  # type: ignore[arg-type]


def test_it_learns_beside_weights_in_4_bits_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra `qlora`")
    pytest.importorskip("bitsandbytes", reason="needs the extra `qlora`")
    plain = adapted.folder(tmp_path / "plain", hidden_size=64, intermediate_size=96)
    made = opened(plain)
    stored = load_file(plain / "model.safetensors")
    start = adapted.weights(made)
    announced = [(meta.name, meta.dtype, meta.shape) for meta in made.metadata()]
    assert announced == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in start.items()]
    assert start.keys() == stored.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    error = (start[name] - stored[name]).abs().mean() / stored[name].abs().mean()
    assert 0.02 < error < 0.15, "of 4 bits"
    assert torch.equal(start["lm_head.weight"], stored["lm_head.weight"])
    adapted.train(made, 2)
    logprobs = torch.cat(made.logprobs(adapted.batches()))
    folder = tmp_path / "step_2"
    folder.mkdir()
    made.save(folder)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    whole = AutoModelForCausalLM.from_pretrained(folder)
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    merged = torch.cat(adapted.learner(folder, "full", loss=None).logprobs(adapted.batches()))
    torch.testing.assert_close(merged, logprobs, atol=1e-3, rtol=0)
    again = opened(plain, adapter=folder / "adapter")
    again.load(folder)
    adapted.train(made, 1)
    adapted.train(again, 1)
    expected = adapted.own(made)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in adapted.own(again).items())


def test_the_head_of_a_critic_is_not_quantised(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="needs the extra `qlora`")
    pytest.importorskip("bitsandbytes", reason="needs the extra `qlora`")
    plain = adapted.folder(tmp_path / "plain", hidden_size=64, intermediate_size=96)
    made = opened(plain, loss="value")
    adapted.train(made, 1)
    assert adapted.own(made)["score.weight"].abs().max() > 0
    folder = tmp_path / "step_1"
    folder.mkdir()
    made.save(folder)
    values = torch.cat(adapted.learner(folder, "full", loss="value").values(adapted.batches()))
    torch.testing.assert_close(values, torch.cat(made.values(adapted.batches())), atol=1e-3, rtol=0)


def test_another_backend_is_refused() -> None:
    chosen = build_component("rlhf.models.trainable", QLORA, "trainable")
    with pytest.raises(ConfigError, match=r"trainable\.name.*cannot hold"):
        Config(trainable=chosen, backend=build_component("rlhf.learner.backends", "deepspeed_backend", "backend"))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainable\.quant_type"):
        build_component("rlhf.models.trainable", QLORA | {"quant_type": "int3"}, "trainable")


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"rlhf\[qlora\]"):
        qlora.quantization(qlora.Config())
