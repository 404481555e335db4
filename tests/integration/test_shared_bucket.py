"""Weights in shared memory: what is written is what is read, in a bucket of a fixed size, and nothing is left over."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shared_names import left_behind, named
from torch import Tensor

from rollout.shared_bucket import ALIGNMENT, MIB, Piece, Reader, Writer, checksum

HALF = MIB // 2


def weights() -> list[tuple[str, Tensor]]:
    """Of several types and layouts, one larger than half of the smallest bucket, one larger than the whole."""
    g = torch.Generator().manual_seed(0)
    return [
        ("small", torch.randn(3, 5, generator=g)),
        ("bytes", torch.arange(7, dtype=torch.uint8)),
        ("half", torch.randn(11, 2, generator=g).to(torch.bfloat16)),
        ("scalar", torch.tensor(3.5)),
        ("empty", torch.empty(0, 4)),
        ("turned", torch.randn(300, 200, generator=g).t()),
        ("large", torch.randn(400, 400, generator=g)),
        ("larger", torch.randn(1000, 700, generator=g).to(torch.float64).t()),
        ("last", torch.randn(60, 60, generator=g)),
    ]


def received(writer: Writer, reader: Reader, given: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Copies of what arrives."""
    return {name: tensor.clone() for pieces in writer.filled(given) for name, tensor in reader.tensors(pieces)}


def assert_same(found: dict[str, Tensor], wanted: list[tuple[str, Tensor]]) -> None:
    assert list(found) == [name for name, _ in wanted]
    for name, tensor in wanted:
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("size_mib", [1, 2, 64])
def test_weights_arrive_as_they_were(size_mib: int) -> None:
    writer = Writer(size_mib)
    assert_same(received(writer, Reader(writer.place), weights()), weights())


def test_the_memory_serves_again_and_again() -> None:
    writer = Writer(1)
    reader = Reader(writer.place)
    for _ in range(3):
        assert_same(received(writer, reader, weights()), weights())


def test_a_round_that_stopped_half_way_does_not_show_in_the_next() -> None:
    writer = Writer(1)
    reader = Reader(writer.place)
    ones = [("larger", torch.ones(700, 1000, dtype=torch.float64))]
    for count, pieces in enumerate(writer.filled(ones)):
        list(reader.tensors(pieces))
        if count == 2:
            break
    assert_same(received(writer, reader, weights()), weights())


def test_halves_are_filled_in_turn_and_what_lies_in_one_stays_while_the_other_is_filled() -> None:
    writer = Writer(1)
    reader = Reader(writer.place)
    same = [(f"w{i}", torch.full((HALF // 4,), float(i))) for i in range(5)]
    before: list[tuple[str, Tensor]] = []
    for i, pieces in enumerate(writer.filled(same)):
        assert {piece.offset // HALF for piece in pieces} == {i % 2}
        for name, tensor in before:
            assert (tensor == float(name[1:])).all()
        before = list(reader.tensors(pieces))
    assert [name for name, _ in before] == ["w4"]


def test_a_tensor_is_cut_only_where_it_is_larger_than_a_half() -> None:
    writer = Writer(1)
    rows = [list(pieces) for pieces in writer.filled(weights())]
    counts = {name: sum(piece.name == name for row in rows for piece in row) for name, _ in weights()}
    assert counts["larger"] == -(-700 * 1000 * 8 // HALF) and counts["large"] == -(-400 * 400 * 4 // HALF) == 2
    assert all(counts[name] == 1 for name in counts if name not in ("large", "larger"))
    for row in rows:
        ends = [0, *(piece.offset % HALF + piece.size for piece in row)]
        assert max(ends) <= HALF
        assert all(piece.offset % ALIGNMENT == 0 for piece in row)
        assert all(piece.offset % HALF >= end for piece, end in zip(row, ends, strict=False))


def test_views_are_of_the_shared_memory_and_cannot_be_written() -> None:
    writer = Writer(1)
    [pieces] = writer.filled([("w", torch.ones(4))])
    [(_, tensor)] = Reader(writer.place).tensors(pieces)
    code = (
        "import sys, torch\nfrom rollout.shared_bucket import *\n"
        f"reader = Reader({writer.place!r})\n[(_, tensor)] = reader.tensors([{pieces[0]!r}])\n"
        "print(tensor.tolist(), flush=True)\ntensor.zero_()\nprint('written')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "[1.0, 1.0, 1.0, 1.0]\n" and run.returncode < 0, run.stderr
    assert tensor.tolist() == [1, 1, 1, 1]
    list(writer.filled([("w", torch.full((4,), 2.0))]))
    assert tensor.tolist() == [2, 2, 2, 2]


def test_nothing_is_left_when_both_sides_have_let_go() -> None:
    def held() -> tuple[int, int]:
        gc.collect()
        files = Path("/proc/self/fd").iterdir()
        return (
            Path("/proc/self/maps").read_text().count("rlhf-weights"),
            sum("rlhf-weights" in os.readlink(file) for file in files if file.is_symlink()),
        )

    before, names = held(), named()
    writer = Writer(1)
    reader = Reader(writer.place)
    assert held()[0] == before[0] + 2
    assert named() == names, "the bucket has no name that could be left"
    received(writer, reader, weights())
    writer.close()
    assert held()[0] == before[0] + 1
    del writer, reader
    assert held() == before


def test_a_name_that_nobody_holds_is_found_and_one_in_use_is_not() -> None:
    code = (
        "import os, sys\nfrom multiprocessing import resource_tracker, shared_memory\n"
        "made = [shared_memory.SharedMemory(create=True, size=1) for _ in '12']\n"
        "for each in made: resource_tracker.unregister(each._name, 'shared_memory')\n"
        "print(*(each.name for each in made), flush=True)\nsys.stdin.read()\nos._exit(0)"
    )
    before = set(os.listdir("/dev/shm"))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    names = set(process.stdout.readline().split())
    try:
        assert len(names) == 2 and names <= named(str(process.pid))
        assert not names & left_behind(before, seconds=0)
        process.communicate()
        assert names <= left_behind(before, seconds=0)
    finally:
        process.kill()
        for name in names:
            Path("/dev/shm", name).unlink()


def test_the_reader_outlives_the_writer() -> None:
    writer = Writer(1)
    reader = Reader(writer.place)
    [pieces] = writer.filled([("w", torch.ones(4))])
    writer.close()
    [(_, tensor)] = reader.tensors(pieces)
    assert tensor.tolist() == [1, 1, 1, 1]


def test_memory_that_cannot_be_reached_is_refused() -> None:
    writer = Writer(1)
    other = Writer(2)
    with pytest.raises(RuntimeError, match="own machine only"):
        Reader(replace(writer.place, boot="another"))
    with pytest.raises(RuntimeError, match="is not the learner's shared memory any more"):
        Reader(replace(writer.place, descriptor=other.place.descriptor))
    other.close()
    with pytest.raises(RuntimeError, match="cannot be opened"):
        Reader(other.place)


def test_checksums_are_of_the_bytes() -> None:
    tensor = torch.arange(12.0).view(3, 4)
    assert checksum(tensor) == checksum(tensor.clone()) == checksum(tensor.t().contiguous().t())
    assert checksum(tensor) == checksum(tensor.view(torch.int32)) != checksum(tensor.t())
    changed = tensor.clone()
    changed[1, 1] += 1e-6
    assert checksum(changed) != checksum(tensor)


def test_pieces_are_plain_data() -> None:
    writer = Writer(1)
    [[piece]] = writer.filled([("w", torch.ones(2, 3))])
    assert piece == Piece(name="w", dtype="float32", shape=(2, 3), start=0, size=24, offset=0)
