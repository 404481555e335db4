"""Weights as a sequence of flat buckets: what travels between processes that share no device.

A bucket is one contiguous run of bytes with the names, types and shapes of the tensors in it, so that a transport moves
one object and the receiver looks at it without copying. Peak extra memory is one bucket, whatever the model's size: a
tensor that is larger than a bucket has one of its own. Checksums are taken of a tensor's bytes, the same on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rollout.shared_bucket import MIB, checksum


@dataclass(frozen=True, slots=True)
class Bucket:
    """Some tensors, end to end."""

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    """As torch calls them: `float32`."""
    shapes: tuple[tuple[int, ...], ...]
    data: NDArray[np.uint8]
    """[bytes]"""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Views of the data; it must outlive them and is not to be written."""
        start = 0
        for name, dtype, shape in zip(self.names, self.dtypes, self.shapes, strict=True):
            kind = vars(torch)[dtype]
            end = start + int(np.prod(shape, dtype=np.int64)) * kind.itemsize
            # Ray hands out read-only memory, which torch warns of; nobody writes here.
            flat = torch.frombuffer(self.data[start:end].data, dtype=torch.uint8) if end > start else None
            yield name, (torch.empty(shape, dtype=kind) if flat is None else flat.view(kind).view(shape))
            start = end


def buckets(weights: Iterable[tuple[str, Tensor]], *, size_mib: int) -> Iterator[Bucket]:
    """Pack weights in order.

    Args:
        weights: named tensors on any device; taken one at a time.
        size_mib: bytes of a bucket, at most, in MiB, unless a single tensor is larger.
    """
    held: list[tuple[str, Tensor]] = []
    room = size_mib * MIB
    for name, tensor in weights:
        size = tensor.numel() * tensor.element_size()
        if held and size > room:
            yield _packed(held)
            held, room = [], size_mib * MIB
        held.append((name, tensor.detach()))
        room -= size
    if held:
        yield _packed(held)


def checksums(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, int]:
    """CRC-32 of the bytes of every tensor."""
    return {name: checksum(tensor) for name, tensor in tensors}


def _packed(held: list[tuple[str, Tensor]]) -> Bucket:
    return Bucket(
        names=tuple(name for name, _ in held),
        dtypes=tuple(str(tensor.dtype).removeprefix("torch.") for _, tensor in held),
        shapes=tuple(tuple(tensor.shape) for _, tensor in held),
        data=torch.cat([_bytes(tensor) for _, tensor in held]).numpy(),
    )


def _bytes(tensor: Tensor) -> Tensor:
    """[bytes] uint8 on the CPU."""
    return tensor.cpu().contiguous().view(-1).view(torch.uint8)
