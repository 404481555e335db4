"""A file of what a teacher finds likeliest at every target of a set of samples.

Written before a distillation stage and read by it; another run may read it too, so that a teacher need not be there
when its students learn. Samples are found by what they are made of, their tokens and which of them are targets, not by
name. The file is safetensors: `ids` [N, K] and `logprobs` [N, K] of all targets one after the other, `keys` [S, 16] and
`counts` [S] of samples, and where it comes from in the header.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlhf.core.errors import DataError
from rlhf.core.training import Sample, TopK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SUFFIX = ".safetensors"
_FORMAT = "rlhf top-k 1"


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds."""

    path: Path
    origin: Mapping[str, str]
    """`teacher`, `weights` (a hash), `vocabulary` (a hash) and `k`."""
    found: TopK
    """Of all targets, one after the other."""
    places: Mapping[bytes, range]
    """Of each sample's targets, by its key."""

    def told(self, sample: Sample) -> Sample:
        """The sample with what the teacher said of it.

        Raises:
            DataError: it was not asked about this one.
        """
        place = self.places.get(key(sample))
        if place is None:
            fix = "let a stage with the same data, examples and tokenizer write the file, or name the teacher itself"
            raise DataError(str(self.path), f"says nothing about sample '{sample.id}'", fix=fix)
        rows = slice(place.start, place.stop)
        return replace(
            sample,
            topk_ids=tuple(map(tuple, self.found.ids_TK[rows].tolist())),
            topk_logprobs=tuple(map(tuple, self.found.logprobs_TK[rows].tolist())),
        )


def key(sample: Sample) -> bytes:
    """What a sample is found by: a hash of its tokens and of which of them are targets."""
    mask = sample.target_mask or (True,) * (len(sample.tokens) - sample.target_start)
    told = (np.array(sample.tokens, dtype=np.int32).tobytes(), bytes(mask), str(sample.target_start).encode())
    return hashlib.sha256(b"".join(told)).digest()[:16]


def vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash that tokenizers have in common whose ids mean the same."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def write(path: Path, samples: Sequence[Sample], found: Sequence[TopK], *, origin: Mapping[str, str]) -> None:
    """Write a file, whole or not at all.

    Args:
        samples: different ones.
        found: of each of them, per target.
        origin: as in `Table`.
    """
    keys = [list(key(sample)) for sample in samples]
    tensors = {
        "ids": torch.cat([one.ids_TK for one in found]).to(torch.int32),
        "logprobs": torch.cat([one.logprobs_TK for one in found]).float(),
        "keys": torch.tensor(keys, dtype=torch.uint8),
        "counts": torch.tensor([len(one.ids_TK) for one in found]),
    }
    path.parent.mkdir(exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    save_file(tensors, hidden, metadata={"format": _FORMAT, **origin})
    hidden.replace(path)


def read(path: Path) -> Table:
    """Read a file.

    Raises:
        DataError: there is none, or it is something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            origin = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        fix = "give a file that a distillation stage has written to its run's folder `data`"
        raise DataError(str(path), f"cannot be read: {error}", fix=fix) from error
    if origin.pop("format", "") != _FORMAT:
        raise DataError(str(path), "does not say what a teacher finds likeliest", fix="name the teacher's folder")
    ends = tensors["counts"].cumsum(0).tolist()
    spans = [range(end - count, end) for end, count in zip(ends, tensors["counts"].tolist(), strict=True)]
    places = {bytes(row): span for row, span in zip(tensors["keys"].tolist(), spans, strict=True)}
    return Table(path, origin, TopK(tensors["ids"].long(), tensors["logprobs"]), places)
