"""A bucket of weights in shared memory: one process fills it again and again, others on the machine read it.

The memory has no name in any file system: it is an anonymous file (`memfd_create`), which readers open through the
writer's entry in `/proc`. So nothing is left behind whichever side dies, the size of `/dev/shm` does not matter, and
only processes of the same user can open it. What travels beside it is plain data.

The bucket has two halves: while one is read, the other is filled. A tensor lies in one half whole, unless it is larger
than that: then it comes in pieces, which the reader puts together. Peak extra memory is one bucket, and on the reader's
side the one tensor that is being put together. Used by `rollout.shm_transfer` and `rollout.vllm_sampler`.
"""

from __future__ import annotations

import mmap
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

MIB = 2**20
ALIGNMENT = 64
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where readers find the memory."""

    pid: int
    descriptor: int
    inode: int
    size: int
    boot: str
    """Of the machine, until it is started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes of a tensor in the bucket: all of them, or some where it is larger than a half."""

    name: str
    dtype: str
    """As torch calls it: `float32`."""
    shape: tuple[int, ...]
    start: int
    """First byte, in the tensor."""
    size: int
    offset: int
    """First byte, in the bucket."""


class Writer:
    """The side that fills the bucket.

    Args:
        size_mib: of the bucket, both halves together.
    """

    def __init__(self, size_mib: int) -> None:
        self._half = size_mib * MIB // 2 // ALIGNMENT * ALIGNMENT
        size = 2 * self._half
        self._file = os.fdopen(os.memfd_create("rlhf-weights"), "r+b", buffering=0)
        descriptor = self._file.fileno()
        # Memory that is not there shows here, as an error, and not as a signal when it is written.
        os.posix_fallocate(descriptor, 0, size)
        self._bytes = torch.frombuffer(mmap.mmap(descriptor, size), dtype=torch.uint8)
        inode, boot = os.fstat(descriptor).st_ino, _BOOT.read_text().strip()
        self.place = Place(pid=os.getpid(), descriptor=descriptor, inode=inode, size=size, boot=boot)

    def close(self) -> None:
        """Let go of the memory; it is freed when the last reader does too."""
        self._file.close()
        self._bytes = torch.empty(0, dtype=torch.uint8)

    def filled(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[list[Piece]]:
        """Fill halves in turn, and give what lies in each.

        Args:
            weights: named tensors on any device, taken one at a time.

        Yields:
            The pieces of a half. They may be read until the half after the next is asked for.
        """
        half, used = 0, 0
        held: list[Piece] = []
        for name, tensor in weights:
            for piece in _pieces(name, tensor, room=self._half):
                if held and used + piece.size > self._half:
                    yield held
                    half, used, held = 1 - half, 0, []
                placed = replace(piece, offset=half * self._half + used)
                self._write(placed, tensor)
                held.append(placed)
                used += -(-piece.size // ALIGNMENT) * ALIGNMENT
        if held:
            yield held

    def _write(self, piece: Piece, tensor: Tensor) -> None:
        target = self._bytes[piece.offset : piece.offset + piece.size]
        if piece.size == _num_bytes(tensor):
            if piece.size:
                target.view(tensor.dtype).view(tensor.shape).copy_(tensor)
            return
        flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
        target.copy_(flat[piece.start : piece.start + piece.size])


class Reader:
    """A side that reads.

    Raises:
        RuntimeError: the memory cannot be reached from here.
    """

    def __init__(self, place: Place) -> None:
        if place.boot != _BOOT.read_text().strip():
            raise RuntimeError("weights in shared memory reach engines on the learner's own machine only; use nccl")
        path = f"/proc/{place.pid}/fd/{place.descriptor}"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise RuntimeError(f"the learner's shared memory cannot be opened: {error}") from error
        try:
            found = os.fstat(descriptor)
            if (found.st_ino, found.st_size) != (place.inode, place.size):
                raise RuntimeError(f"{path} is not the learner's shared memory any more")
            memory = mmap.mmap(descriptor, place.size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        with warnings.catch_warnings():
            # torch warns of memory that it may not write.
            warnings.simplefilter("ignore", UserWarning)
            self._bytes = torch.frombuffer(memory, dtype=torch.uint8)
        self.place = place
        self._growing: dict[str, Tensor] = {}

    def tensors(self, pieces: Sequence[Piece]) -> Iterator[tuple[str, Tensor]]:
        """The tensors that are whole with these pieces.

        They are views of the bucket, to be copied before it is filled again and not to be written; those that came in
        pieces are memory of their own.
        """
        for piece in pieces:
            kind: torch.dtype = vars(torch)[piece.dtype]
            whole = _size(piece.shape, kind)
            found = self._bytes[piece.offset : piece.offset + piece.size]
            if piece.size < whole:
                if piece.start == 0:
                    self._growing[piece.name] = torch.empty(whole, dtype=torch.uint8)
                self._growing[piece.name][piece.start : piece.start + piece.size] = found
                if piece.start + piece.size < whole:
                    continue
                found = self._growing.pop(piece.name)
            yield piece.name, found.view(kind).view(piece.shape)


def checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's bytes."""
    return zlib.crc32(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


def _pieces(name: str, tensor: Tensor, *, room: int) -> Iterator[Piece]:
    """A tensor in parts of at most `room` bytes, one where it fits; not placed yet."""
    dtype, shape, whole = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), _num_bytes(tensor)
    for start in range(0, max(whole, 1), room):
        size = min(room, whole - start)
        yield Piece(name=name, dtype=dtype, shape=shape, start=start, size=size, offset=0)


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _size(shape: Sequence[int], kind: torch.dtype) -> int:
    count = kind.itemsize
    for length in shape:
        count *= length
    return count
