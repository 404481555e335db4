"""What trains chosen by the names of parameters."""

from __future__ import annotations

from pathlib import Path

import adapted
import pytest
import torch

from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError


def test_only_what_matches_changes_and_it_goes_on(tmp_path: Path) -> None:
    trainable = {"name": "matching", "pattern": r"layers\.1\..*mlp|lm_head"}
    plain = adapted.folder(tmp_path / "plain")
    made = adapted.learner(plain, trainable)
    before = adapted.own(made)
    adapted.train(made, 2)
    changed = {name for name, tensor in adapted.own(made).items() if not torch.equal(tensor, before[name])}
    assert changed == {f"model.layers.1.mlp.{kind}_proj.weight" for kind in ("gate", "up", "down")} | {"lm_head.weight"}
    folder = tmp_path / "step_2"
    folder.mkdir()
    made.save(folder)
    again = adapted.learner(folder, trainable)
    again.load(folder)
    adapted.train(made, 1)
    adapted.train(again, 1)
    expected = adapted.own(made)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in adapted.own(again).items())


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"matches no parameter of LlamaForCausalLM\n.*model\.embed_tokens"):
        adapted.learner(adapted.folder(tmp_path), {"name": "matching", "pattern": "expert"})


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainable\.pattern.*no regular expression"):
        build_component("rlhf.models.trainable", {"name": "matching", "pattern": "("}, "trainable")


def test_a_component_that_leaves_nothing_to_train_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.models.trainable.full.prepare", lambda model, cfg, seed: None)
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        adapted.learner(adapted.folder(tmp_path), "full")
