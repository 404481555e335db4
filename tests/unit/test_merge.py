"""Merged folders: they load as models, know what they are made of, and are refused where parents do not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rlhf.core.errors import ConfigError, DataError, UserError
from rlhf.loops import merge
from rlhf.loops.merge import MergeConfig
from rlhf.models import load, task_vectors
from rlhf.models.stored import StoredWeights


def written(folder: Path, *, seed: int, shard: str = "50GB", **changes: Any) -> Path:
    """A model in a folder, near the one of seed 0."""
    model = tiny_model.model(seed=0, **changes)
    if seed:
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape).to(parameter.dtype))
    with load.quiet():
        model.save_pretrained(folder, max_shard_size=shard)
        tiny_model.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A base, a fine-tune in one file and one in many."""
    home = tmp_path_factory.mktemp("models")
    return [
        written(home / "base", seed=0),
        written(home / "one", seed=1),
        written(home / "other", seed=2, shard="20KB"),
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def config(parents: list[Path], out: Path, **settings: Any) -> MergeConfig:
    return MergeConfig(onto=str(parents[0]), models=list(map(str, parents[1:])), out=str(out), **settings)


def test_sharded_and_whole_parents_make_one_model(parents: list[Path], tmp_path: Path) -> None:
    assert len(list(parents[2].glob("*.safetensors"))) > 2
    out = merge.merge(config(parents, tmp_path / "new" / "merged", alpha=0.5, weights=[1.0, 2.0], shard_gb=2e-5))
    assert (out / "model.safetensors.index.json").exists() and not list(out.parent.glob(".*"))
    base, one, other = map(weights, parents)
    for name, found in weights(out).items():
        tuned = [(0.5, one[name]), (1.0, other[name])]
        assert torch.equal(found, task_vectors.merged(base[name], tuned, beta=0.85, gamma=0.99)), name
    model, tokenizer = load.load_model(out, device="cpu"), load.load_tokenizer(out)
    assert model(torch.tensor([tiny_model.ids("3+5=")])).logits.isfinite().all()
    assert tokenizer.get_vocab() == tiny_model.tokenizer().get_vocab()


def test_without_a_mask_one_model_of_factor_1_comes_back(parents: list[Path], tmp_path: Path) -> None:
    out = merge.merge(config(parents[:2], tmp_path / "merged", alpha=1.0, beta=0.0, gamma=1.0))
    found, tuned = weights(out), weights(parents[1])
    assert found.keys() == tuned.keys()
    assert all(torch.allclose(found[name], tuned[name], atol=1e-6, rtol=0) for name in tuned)


def test_the_same_merge_is_the_same_file(parents: list[Path], tmp_path: Path) -> None:
    outs = [merge.merge(config(parents, tmp_path / name)) for name in ("a", "b")]
    assert (outs[0] / "model.safetensors").read_bytes() == (outs[1] / "model.safetensors").read_bytes()


def test_it_says_what_it_is_made_of(parents: list[Path], tmp_path: Path) -> None:
    out = merge.merge(config(parents, tmp_path / "merged", beta=0.5))
    record = json.loads((out / merge.PROVENANCE).read_text())
    assert record["settings"]["beta"] == 0.5 and record["onto"]["path"] == str(parents[0])
    [one, other] = record["models"]
    assert one["sha256"] == {
        "model.safetensors": hashlib.sha256((parents[1] / "model.safetensors").read_bytes()).hexdigest()
    }
    assert len(other["sha256"]) == len(list(parents[2].glob("*.safetensors")))


def test_what_a_checkpoint_says_of_itself_stays_behind(parents: list[Path], tmp_path: Path) -> None:
    base = shutil.copytree(parents[0], tmp_path / "step_9")
    (base / "optimizer").mkdir()
    for name in ("state.json", "manifest.json", "optimizer/moments.safetensors", "model-00001-of-00002.safetensors"):
        (base / name).write_text("{}")
    out = merge.merge(config([base, parents[1]], tmp_path / "merged"))
    assert {p.name for p in out.iterdir()} == {p.name for p in parents[0].iterdir()} | {merge.PROVENANCE}


def refused(error: type[UserError], parents: list[Path], out: Path, *parts: str, **settings: Any) -> None:
    with pytest.raises(error) as caught:
        merge.merge(config(parents, out, **settings))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert not list(out.parent.glob("merged*")) and not list(out.parent.glob(".*"))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"hidden_size": 48}, ["lm_head.weight", "(26, 48)", "(26, 32)"]),
        ({"num_hidden_layers": 3}, ["has tensors that the base has not", "model.layers.2"]),
        ({"num_hidden_layers": 1}, ["lacks tensors of the base", "model.layers.1"]),
        ({"tie_word_embeddings": True}, ["tie_word_embeddings=True"]),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, ["rope_parameters", "500000"]),
    ],
)
def test_parents_of_another_shape_or_meaning_are_refused(
    changes: dict[str, Any], parts: list[str], parents: list[Path], tmp_path: Path
) -> None:
    other = written(tmp_path / "models" / "odd", seed=1, **changes)
    refused(DataError, [parents[0], other], tmp_path / "merged", str(other), *parts)


def test_another_architecture_or_vocabulary_is_refused(parents: list[Path], tmp_path: Path) -> None:
    mistral = tmp_path / "models" / "mistral"
    tiny_model.model("mistral").save_pretrained(mistral)
    tiny_model.tokenizer().save_pretrained(mistral)
    refused(DataError, [parents[0], mistral], tmp_path / "merged", "model_type=mistral", "llama")
    renamed = shutil.copytree(parents[1], tmp_path / "models" / "renamed")
    text = (renamed / "tokenizer.json").read_text()
    (renamed / "tokenizer.json").write_text(text.replace('"f":', '"z":'))
    refused(DataError, [parents[0], renamed], tmp_path / "merged", "vocabulary", "2 tokens", "'f', 'z'")


def test_no_model_is_refused(parents: list[Path], tmp_path: Path) -> None:
    (tmp_path / "models" / "adapter").mkdir(parents=True)
    refused(DataError, [parents[0], tmp_path / "models" / "adapter"], tmp_path / "merged", "LoRA")
    refused(DataError, [parents[0], tmp_path / "models" / "none"], tmp_path / "merged", "no such model folder")


def test_a_damaged_file_is_named(parents: list[Path], tmp_path: Path) -> None:
    broken = shutil.copytree(parents[1], tmp_path / "models" / "broken")
    (broken / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    refused(DataError, [parents[0], broken], tmp_path / "merged", "broken")


def test_nothing_is_written_over(parents: list[Path], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        merge.merge(config(parents, tmp_path / "there"))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"onto": ""}, "onto"),
        ({"models": []}, "models"),
        ({"weights": [1.0]}, "weights"),
        ({"beta": -0.1}, "beta"),
        ({"beta": 0.99}, "beta"),
        ({"gamma": 1.5}, "gamma"),
        ({"shard_gb": 0.0}, "shard_gb"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MergeConfig(**({"onto": "base", "models": ["a", "b"], "out": "merged"} | wrong))
    assert caught.value.where == field


def test_a_tensor_is_described_without_being_read(parents: list[Path]) -> None:
    stored = StoredWeights(parents[2])
    for name in stored.names:
        meta, tensor = stored.describe(name), stored.get(name)
        assert (meta.dtype, meta.shape) == (tensor.dtype, tuple(tensor.shape))
    with safe_open(parents[0] / "model.safetensors", framework="pt") as file:
        assert stored.names == sorted(file.keys())
