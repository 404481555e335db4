"""Tensors to safetensors files one at a time, so that a sharded model is written without ever being whole anywhere.

The format (https://github.com/huggingface/safetensors): eight bytes with the length of a JSON header, the header with
name, type, shape and place of every tensor, then the bytes. All that the header says is known beforehand, so the
tensors can follow one by one. Where several ranks gather a tensor together, all of them run through the source and one
writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from rlhf.core.training import TensorMeta

SHARD_BYTES = 50 * 10**9
"""Largest file of a model, as `save_pretrained` has it."""
MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"

_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write(path: Path | None, metas: Sequence[TensorMeta], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write one file.

    Args:
        path: None on ranks that only help to gather.
        metas: what will come, in order.
        tensors: what comes; each is let go before the next is asked for.
    """
    _write_all([(path, metas)], tensors)


def write_model(
    folder: Path | None,
    metas: Sequence[TensorMeta],
    tensors: Iterable[tuple[str, Tensor]],
    *,
    limit: int = SHARD_BYTES,
) -> None:
    """Write the weights of a model as Hugging Face does: one file, or several with an index.

    Args:
        folder: None on ranks that only help to gather.
        metas: what will come, in order.
        tensors: what comes; each is let go before the next is asked for.
        limit: bytes per file; a larger tensor has a file of its own.
    """
    shards = runs(metas, limit=limit)
    names = (
        [MODEL]
        if len(shards) == 1
        else [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    )
    places = [None if folder is None else folder / name for name in names]
    _write_all(list(zip(places, shards, strict=True)), tensors)
    if folder is not None and len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(m.num_bytes for m in metas)},
            "weight_map": {m.name: name for name, shard in zip(names, shards, strict=True) for m in shard},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def runs(metas: Sequence[TensorMeta], *, limit: int) -> list[list[TensorMeta]]:
    """Tensors in order, in runs of at most `limit` bytes; a larger tensor is a run of its own. At least one run."""
    found: list[list[TensorMeta]] = [[]]
    size = 0
    for meta in metas:
        if found[-1] and size + meta.num_bytes > limit:
            found.append([])
            size = 0
        found[-1].append(meta)
        size += meta.num_bytes
    return found


def _write_all(
    files: Sequence[tuple[Path | None, Sequence[TensorMeta]]], tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """A disk that refuses is reported at the end: other ranks wait in the source for this one to go through it."""
    source = iter(tensors)
    refused: OSError | None = None
    for path, metas in files:
        with ExitStack() as stack:
            try:
                file = None if path is None or refused else stack.enter_context(path.open("wb"))
                if file is not None:
                    file.write(_header(metas))
            except OSError as error:
                file, refused = None, error
            for meta in metas:
                tensor = _next(source, meta)
                try:
                    if file is not None and refused is None:
                        file.write(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
                except OSError as error:
                    refused = error
    assert next(source, None) is None, "more tensors came than were announced"
    if refused is not None:
        raise refused


def _next(source: Iterator[tuple[str, Tensor]], meta: TensorMeta) -> Tensor:
    name, tensor = next(source)
    came = TensorMeta(name, tensor.dtype, tuple(tensor.shape))
    assert came == meta, f"{came} came where {meta} was announced"
    return tensor


def _header(metas: Sequence[TensorMeta]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for meta in metas:
        start, end = end, end + meta.num_bytes
        entries[meta.name] = {"dtype": _CODES[meta.dtype], "shape": list(meta.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    # The data begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
