"""What a teacher said, in a file: written and read, found by content, and refused where it is something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_model
import torch
from safetensors.torch import save_file

from rlhf.core.errors import DataError
from rlhf.core.training import Sample, TopK
from rlhf.data import topk
from rlhf.models import tokenizers

ONE = Sample(id="a", tokens=(7, 8, 9), target_start=1)
TWO = Sample(id="b", tokens=(7, 8, 9), target_start=1, target_mask=(False, True))
SAID = [
    TopK(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[-0.1, -3.0], [-0.2, -2.0]])),
    TopK(torch.tensor([[5, 6]]), torch.tensor([[-0.5, -1.0]])),
]
ORIGIN = {"teacher": "big", "vocabulary": topk.vocabulary(tiny_model.tokenizer()), "k": "2"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "s.topk.safetensors"
    topk.write(path, [ONE, TWO], SAID, origin=ORIGIN)
    return path


def test_what_is_written_is_found_by_tokens_and_targets(file: Path) -> None:
    table = topk.read(file)
    assert dict(table.origin) == ORIGIN
    told = table.told(replace(ONE, id="other", unit="u", weights=(1.0, 2.0), inputs=(7, 0, 9)))
    assert told.topk_ids == ((1, 2), (3, 4)) and told.id == "other" and told.unit == "u"
    assert told.topk_logprobs is not None
    assert told.topk_logprobs[1] == pytest.approx((-0.2, -2.0))
    assert table.told(TWO).topk_ids == ((5, 6),)
    assert [path.name for path in file.parent.iterdir()] == [file.name], "nothing half written is left"


def test_a_sample_that_was_not_asked_about_is_named(file: Path) -> None:
    for sample in (
        replace(ONE, tokens=(7, 8, 10)),
        replace(ONE, target_start=2),
        replace(TWO, target_mask=(True, False)),
    ):
        with pytest.raises(DataError, match=f"says nothing about sample '{sample.id}'"):
            topk.read(file).told(sample)


def test_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        topk.read(tmp_path / "none.safetensors")
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="does not say what a teacher finds likeliest"):
        topk.read(tmp_path / "model.safetensors")


def test_a_vocabulary_is_told_by_its_tokens_and_ids() -> None:
    assert topk.vocabulary(tokenizers.train_char([])) == topk.vocabulary(tokenizers.train_char(["abc"]))
    assert topk.vocabulary(tokenizers.train_char(["ä"])) != topk.vocabulary(tokenizers.train_char(["ö"]))
