"""Changed rotary positions: in the saved config, one for everything that opens it, refused where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig

from rlhf.core.errors import ConfigError
from rlhf.loops import settings, setup
from rlhf.models import load, rope
from rlhf.models.rope import RopeConfig

TEXTS = ["3+5=8\n#### 8"]


def saved(folder: Path, family: str = "llama", **changes: Any) -> Path:
    with load.quiet():
        tiny_model.model(family, **changes).save_pretrained(folder)
        tiny_model.tokenizer().save_pretrained(folder)
    return folder


def prepared(source: Path, folder: Path, **cfg: Any) -> Path:
    return load.prepare(load.Config(path=str(source), rope=RopeConfig(**cfg)), folder, texts=[], seed=0)


def logits(folder: Path, tokens: list[int], positions: list[int] | None = None) -> torch.Tensor:
    model = load.load_model(folder, device="cpu")
    with torch.no_grad():
        place = {} if positions is None else {"position_ids": torch.tensor([positions])}
        return model(torch.tensor([tokens]), **place).logits


def test_nothing_asked_for_is_nothing_changed(tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    assert prepared(source, tmp_path / "model") == source and not (tmp_path / "model").exists()


def test_a_base_is_that_of_every_frequency(tmp_path: Path) -> None:
    changed = prepared(saved(tmp_path / "source"), tmp_path / "model", base=500_000, positions=256)
    model = load.load_model(changed, device="cpu")
    expected = [500_000 ** (-2 * j / 8) for j in range(4)]
    assert model.model.rotary_emb.inv_freq.tolist() == pytest.approx(expected)
    config = AutoConfig.from_pretrained(changed)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 500_000.0}
    assert config.max_position_embeddings == 256


def test_scaled_positions_are_fractions_of_the_old_ones(tmp_path: Path) -> None:
    """Reading every fourth position of a model that is scaled by 4 is reading the model itself."""
    source = saved(tmp_path / "source")
    changed = prepared(source, tmp_path / "model", scale=4)
    tokens = list(tiny_model.ids("3+5=8#1"))
    far = logits(changed, tokens, [4 * i for i in range(7)])
    assert torch.allclose(far, logits(source, tokens), atol=1e-5)
    assert not torch.allclose(logits(changed, tokens), logits(source, tokens), atol=1e-2)
    assert AutoConfig.from_pretrained(changed).max_position_embeddings == 4 * tiny_model.CONTEXT


def test_weights_and_tokenizer_are_those_of_the_model(tmp_path: Path) -> None:
    source = saved(tmp_path / "source")
    changed = prepared(source, tmp_path / "model", base=1e6)
    assert {p.name for p in changed.iterdir()} == {p.name for p in source.iterdir()}
    own = [p.name for p in changed.iterdir() if not p.is_symlink()]
    assert own == ["config.json"], "nothing is copied"
    assert load.load_tokenizer(changed).get_vocab() == tiny_model.tokenizer().get_vocab()


def test_a_checkpoint_of_the_changed_model_is_changed_too(tmp_path: Path) -> None:
    changed = prepared(saved(tmp_path / "source"), tmp_path / "model", base=500_000, scale=2)
    model = load.load_model(changed, device="cpu")
    model.save_pretrained(tmp_path / "step_1")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "step_1")
    assert again.config.rope_parameters == {"rope_type": "linear", "rope_theta": 500_000.0, "factor": 2.0}
    tokens = torch.tensor([tiny_model.ids("3+5=8#1")])
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    tiny_model.tokenizer().save_pretrained(tmp_path / "step_1")
    with pytest.raises(ConfigError, match="scaled already, by 'linear'"):
        prepared(tmp_path / "step_1", tmp_path / "twice", scale=2)
    assert not (tmp_path / "twice").exists()


def test_a_model_from_nothing_has_it_too(tmp_path: Path) -> None:
    cfg = load.Config(init="nano", max_positions=64, rope=RopeConfig(base=50_000, scale=2))
    assert cfg.makes_folder
    folder = load.prepare(cfg, tmp_path / "model", texts=TEXTS, seed=0)
    config = load.load_model(folder, device="cpu").config
    assert config.rope_parameters == {"rope_type": "linear", "rope_theta": 50_000.0, "factor": 2.0}
    assert config.max_position_embeddings == 128


def test_another_base_keeps_a_scaling_that_is_there() -> None:
    config = LlamaConfig(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0})
    rope.apply(RopeConfig(base=1e6), config)
    assert config.rope_parameters == {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
    assert config.max_position_embeddings == LlamaConfig().max_position_embeddings


def test_a_run_that_goes_on_finds_its_model_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    load.prepare(load.Config(init="nano"), source, texts=TEXTS, seed=0)
    task = "task: {name: sums, train_size: 4, held_out_size: 2}\nstages: [sft]\nsft: {loop: offline}\n"
    text = f"run: {{name: far}}\n{task}model: {{path: {source}, rope: {{base: 500000, positions: 2048}}}}\n"
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    asked = settings.read(tmp_path / "config.yaml").settings
    first = setup.parts(asked, tmp_path / "run" / "model")
    assert first.model_folder == tmp_path / "run" / "model"
    assert setup.context_length(first.model_folder) == 2048
    assert setup.parts(asked, tmp_path / "run" / "model").model_folder == first.model_folder


@pytest.mark.parametrize("family", ["gpt2", "mamba"])
def test_a_model_without_rotary_positions_is_refused(family: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "source", family)
    with pytest.raises(ConfigError, match=rf"model.rope: {family} models have no rotary positions"):
        prepared(source, tmp_path / "model", base=500_000)
    assert not (tmp_path / "model").exists()


def test_layers_with_positions_of_their_own_are_refused() -> None:
    with pytest.raises(ConfigError, match="several kinds"):
        rope.apply(RopeConfig(base=500_000), Gemma3TextConfig())


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"base": 1.0}, "base"),
        ({"base": float("inf")}, "base"),
        ({"scale": 0.5}, "scale"),
        ({"positions": 1}, "positions"),
    ],
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RopeConfig(**wrong)
    assert caught.value.where == field
