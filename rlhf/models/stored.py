"""The weights of a model folder, read tensor by tensor: what is in one or many safetensors files, under one roof.

For tools that look at every weight once and never need the model (`rlhf.loops.merge`). No more than the tensor that is
asked for is read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlhf.core.errors import DataError
from rlhf.core.training import TensorMeta

_INDEX = "model.safetensors.index.json"


class StoredWeights:
    """Tensors of a folder in Hugging Face format.

    Args:
        folder: with `model.safetensors`, or an index and the files that it names.

    Raises:
        DataError: there are no safetensors, or not all that the index names.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = _places(folder)

    @property
    def names(self) -> list[str]:
        """Of all tensors, sorted."""
        return sorted(self._places)

    def get(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        try:
            with safe_open(self._places[name], framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise _damaged(self._places[name], error) from error

    def describe(self, name: str) -> TensorMeta:
        """Its type and shape; of the tensor itself no more than one row is read."""
        with safe_open(self._places[name], framework="pt") as file:
            piece = file.get_slice(name)
            shape = tuple(piece.get_shape())
            one = piece[:0] if shape and shape[0] else file.get_tensor(name)
        return TensorMeta(name, one.dtype, shape)

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file of weights, by its name."""
        found: dict[str, str] = {}
        for path in sorted(set(self._places.values())):
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found


def _places(folder: Path) -> dict[str, Path]:
    """The file of each tensor."""
    index, single = folder / _INDEX, folder / "model.safetensors"
    if single.is_file():
        files = {single}
    elif index.is_file():
        named: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {folder / name for name in named.values()}
    else:
        fix = "give a folder with config.json and *.safetensors; a LoRA adapter has to be merged into its model first"
        raise DataError(str(folder), "holds no weights in safetensors", fix=fix)
    found: dict[str, Path] = {}
    for path in sorted(files):
        try:
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from error
    return found


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(str(path), f"cannot be read: {error}", fix="fetch or write that model again")
