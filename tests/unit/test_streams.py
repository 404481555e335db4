"""Safetensors files written tensor by tensor: what others read in them, and what happens when a disk is full."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from rlhf.core.training import TensorMeta
from rlhf.learner import streams


def tensors() -> dict[str, Tensor]:
    """Every type, odd sizes, a scalar, an empty one, and one that is not contiguous."""
    generator = torch.Generator().manual_seed(0)
    return {
        "b": torch.randn(3, 5, generator=generator).bfloat16(),
        "a": torch.randn(7, 3, generator=generator).T,
        "f": torch.randn(2, generator=generator, dtype=torch.float64),
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "ids": torch.arange(5),
        "bytes": torch.arange(3, dtype=torch.uint8),
    }


def metas(of: dict[str, Tensor]) -> list[TensorMeta]:
    return [TensorMeta(name, t.dtype, tuple(t.shape)) for name, t in of.items()]


def assert_holds(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_a_file_reads_back_with_safetensors(tmp_path: Path) -> None:
    streams.write(tmp_path / "x", metas(tensors()), tensors().items())
    assert_holds(load_file(tmp_path / "x"), tensors())
    with safe_open(tmp_path / "x", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_file_of_nothing_is_one(tmp_path: Path) -> None:
    streams.write(tmp_path / "x", [], [])
    assert load_file(tmp_path / "x") == {}


def test_one_tensor_is_asked_for_at_a_time_and_written_before_the_next(tmp_path: Path) -> None:
    written: list[int] = []

    def one_by_one() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors().items():
            written.append((tmp_path / "x").stat().st_size)
            yield name, torch.zeros(tensor.shape, dtype=tensor.dtype)

    big = {name: torch.zeros(2**16) for name in "abc"}
    streams.write(tmp_path / "x", metas(tensors()), one_by_one())
    sizes: list[int] = []

    def big_ones() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in big.items():
            sizes.append((tmp_path / "y").stat().st_size)
            yield name, tensor

    streams.write(tmp_path / "y", metas(big), big_ones())
    assert [size // 2**18 for size in sizes] == [0, 1, 2]


@pytest.mark.parametrize("limit", [1, 60, 130, 10**6])
def test_a_model_is_split_as_hugging_face_does(tmp_path: Path, limit: int) -> None:
    streams.write_model(tmp_path, metas(tensors()), tensors().items(), limit=limit)
    files = sorted(tmp_path.glob("*.safetensors"))
    found = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert_holds(found, tensors())
    if limit == 10**6:
        assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
        return
    for file in files:
        held = load_file(file)
        assert len(held) == 1 or sum(t.nbytes for t in held.values()) <= limit
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors().values())
    assert [f.name for f in files] == [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
    assert index["weight_map"] == {name: file.name for file in files for name in load_file(file)}


def test_a_rank_that_does_not_write_runs_through_the_source() -> None:
    seen: list[str] = []
    streams.write_model(None, metas(tensors()), ((seen.append(n), (n, t))[1] for n, t in tensors().items()), limit=1)
    streams.write(None, metas(tensors()), ((seen.append(n), (n, t))[1] for n, t in tensors().items()))
    assert seen == list(tensors()) * 2


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_is_reported_after_the_source_has_come_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Other ranks wait for this one in the source; they must not wait for ever."""

    class Full(io.BytesIO):
        writes = 0

        def write(self, data: Any) -> int:
            self.writes += 1
            if self.writes > after:
                raise OSError(28, "No space left on device")
            return len(data)

    monkeypatch.setattr(Path, "open", lambda *_: Full())
    seen: list[str] = []
    source = ((seen.append(n), (n, t))[1] for n, t in tensors().items())
    with pytest.raises(OSError, match="No space left"):
        streams.write_model(tmp_path, metas(tensors()), source, limit=60)
    assert seen == list(tensors())


def test_other_tensors_than_announced_are_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="was announced"):
        streams.write(tmp_path / "x", metas(tensors())[::-1], tensors().items())
    with pytest.raises(AssertionError, match="more tensors"):
        streams.write(tmp_path / "x", metas(tensors())[:2], tensors().items())
