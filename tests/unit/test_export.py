"""A model written in parts is the one that `save_pretrained` writes, for every family and for mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from rlhf.learner import export


def mixture() -> Any:
    """Its experts are one tensor in memory and many in a checkpoint."""
    shape: dict[str, Any] = {"vocab_size": tiny_model.VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "moe_intermediate_size": 16, "num_experts": 4}
    return AutoModelForCausalLM.from_config(Qwen3MoeConfig(num_experts_per_tok=2, **shape))


MODELS = {
    "llama": lambda: tiny_model.model("llama"),
    "tied": lambda: tiny_model.model("llama", tie_word_embeddings=True),
    "gpt2": lambda: tiny_model.model("gpt2"),
    "bfloat16": lambda: tiny_model.model("qwen3", dtype=torch.bfloat16),
    "mixture": mixture,
}


class Gathered:
    """Notes what is whole at a time."""

    def __init__(self) -> None:
        self.groups: list[int] = []

    @contextmanager
    def __call__(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        self.groups.append(sum(t.nbytes for t in tensors))
        yield


def read(folder: Path) -> dict[str, Tensor]:
    return {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}


@pytest.mark.parametrize("limit", [None, 4000])
@pytest.mark.parametrize("family", MODELS)
def test_it_is_what_save_pretrained_writes(family: str, limit: int | None, tmp_path: Path) -> None:
    model, gathered = MODELS[family](), Gathered()
    options: dict[str, Any] = {} if limit is None else {"limit": limit}
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    export.save_model(model, ours, gathered=gathered, writes=True, **options)
    model.save_pretrained(theirs, **({} if limit is None else {"max_shard_size": limit}))
    found, expected = read(ours), read(theirs)
    assert found.keys() == expected.keys()
    assert all(found[n].dtype == t.dtype and torch.equal(found[n], t) for n, t in expected.items())
    if family != "mixture" and limit is None:
        assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    for name in ("config.json", "generation_config.json"):
        assert (ours / name).read_text() == (theirs / name).read_text()
    assert (ours / "model.safetensors.index.json").exists() == (theirs / "model.safetensors.index.json").exists()
    loaded = AutoModelForCausalLM.from_pretrained(ours)
    assert all(torch.equal(p, model.get_parameter(name)) for name, p in loaded.named_parameters())
    assert max(gathered.groups) == max(p.nbytes for p in model.parameters()), "one parameter at a time"


def test_layers_are_whole_where_a_checkpoint_joins_what_memory_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No small architecture of transformers needs it today: queries, keys and values are joined by hand."""

    def joined(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        out = dict(tensors)
        for name in tensors:
            if name.endswith("q_proj.weight"):
                parts = [name, name.replace("q_proj", "k_proj"), name.replace("q_proj", "v_proj")]
                if all(part in out for part in parts):
                    out[name.replace("q_proj", "qkv")] = torch.cat([out.pop(part) for part in parts])
        return out

    monkeypatch.setattr(export, "revert_weight_conversion", joined)
    model, gathered = tiny_model.model("llama"), Gathered()
    export.save_model(model, tmp_path, gathered=gathered, writes=True)
    layer = sum(p.nbytes for name, p in model.named_parameters() if "layers.1." in name)
    assert max(gathered.groups) == layer < sum(p.nbytes for p in model.parameters()) / 2
    found = load_file(tmp_path / "model.safetensors")
    attention = model.model.layers[1].self_attn
    expected = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    assert torch.equal(found["model.layers.1.self_attn.qkv.weight"], expected)


def test_a_rank_that_does_not_write_gathers_the_same(tmp_path: Path) -> None:
    model, groups = tiny_model.model("gpt2"), []
    for writes in (False, True):
        gathered = Gathered()
        export.save_model(model, tmp_path, gathered=gathered, writes=writes)
        groups.append(gathered.groups)
        assert bool(list(tmp_path.iterdir())) == writes
    assert groups[0] == groups[1]
