"""Full fine-tuning: everything trains."""

from __future__ import annotations

from pathlib import Path

import adapted
import torch

from rlhf.core.component import Component
from rlhf.models.trainable import full


def test_every_parameter_changes(tmp_path: Path) -> None:
    made = adapted.learner(adapted.folder(tmp_path), "full")
    before = adapted.own(made)
    adapted.train(made)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in adapted.own(made).items())


def test_it_is_the_default(tmp_path: Path) -> None:
    default: Component = adapted.Config().trainable
    assert (default.name, default.config) == ("full", full.Config())
