"""Weights in flat buckets: what goes in comes out, in bounded pieces, with the same checksums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhf.sync.buckets import Bucket, buckets, checksums

WEIGHTS = [
    ("a", torch.arange(6, dtype=torch.float32).view(2, 3)),
    ("b", torch.tensor([1.5, -2.0], dtype=torch.bfloat16)),
    ("c", torch.zeros(0, 4)),
    ("d", torch.tensor(7, dtype=torch.int64)),
]


def test_tensors_come_back_with_their_types_and_shapes() -> None:
    (bucket,) = buckets(WEIGHTS, size_mib=1)
    for (name, expected), (found_name, found) in zip(WEIGHTS, bucket.tensors(), strict=True):
        assert found_name == name and found.dtype == expected.dtype and torch.equal(found, expected)


def test_a_bucket_is_a_view_of_its_bytes() -> None:
    (bucket,) = buckets(WEIGHTS[:1], size_mib=1)
    [(_, tensor)] = bucket.tensors()
    bucket.data[:4] = np.frombuffer(np.float32(9).tobytes(), dtype=np.uint8)
    assert tensor[0, 0] == 9


@pytest.mark.parametrize(("size_mib", "expected"), [(1, [["x"], ["y"], ["z", "w"]]), (2, [["x"], ["y", "z"], ["w"]])])
def test_buckets_are_bounded_and_a_large_tensor_travels_alone(size_mib: int, expected: list[list[str]]) -> None:
    sizes = {"x": 3 * 2**18 * size_mib, "y": 2**18, "z": 2**17, "w": 2**17 if size_mib == 1 else 2**18}
    found = [list(b.names) for b in buckets(((n, torch.zeros(s)) for n, s in sizes.items()), size_mib=size_mib)]
    assert found == expected


def test_weights_are_taken_one_bucket_at_a_time() -> None:
    taken: list[str] = []

    def source():
        for name in "abcd":
            taken.append(name)
            yield name, torch.zeros(2**18)

    stream = buckets(source(), size_mib=1)
    next(stream)
    assert taken == ["a", "b"], "the one that did not fit has been looked at, no more"


def test_checksums_agree_on_both_sides_and_notice_a_flipped_bit() -> None:
    (bucket,) = buckets(WEIGHTS, size_mib=1)
    assert checksums(bucket.tensors()) == checksums(WEIGHTS)
    data = bucket.data.copy()
    data[0] ^= 1
    broken = checksums(Bucket(bucket.names, bucket.dtypes, bucket.shapes, data).tensors())
    assert {name for name, value in broken.items() if value != checksums(WEIGHTS)[name]} == {"a"}
