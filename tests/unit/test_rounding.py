"""Rounding of mantissas: against the conversions of torch, by hand at ties, and for what must not change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rollout.rounding import round_mantissa, stored_bits

TYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def any_float32(count: int) -> Tensor:
    """Numbers of every size, drawn as bit patterns: subnormal, tiny, huge, infinite and nan ones are among them."""
    drawn = torch.randint(-(2**31), 2**31, (count,), generator=torch.Generator().manual_seed(0))
    return drawn.to(torch.int32).view(torch.float32)


def rounded(values: list[float], bits: int, dtype: torch.dtype = torch.float32) -> list[float]:
    return round_mantissa(torch.tensor(values, dtype=dtype), bits=bits).tolist()


def test_seven_bits_are_bfloat16_for_every_float32() -> None:
    largest = torch.finfo(torch.float32).max
    values = torch.cat([any_float32(400_000), torch.tensor([0.0, -0.0, math.inf, -math.inf, largest, -largest])])
    ours = round_mantissa(values, bits=7)
    theirs = values.to(torch.bfloat16).to(torch.float32)
    assert values.isnan().any() and (values.abs() < 1e-39).any() and ours.isinf().sum() > 4
    assert torch.equal(ours.isnan(), theirs.isnan())
    there = ~theirs.isnan()
    assert torch.equal(ours[there].view(torch.int32), theirs[there].view(torch.int32)), "signs of zeros included"


def test_three_bits_are_fp8_e4m3_within_its_range() -> None:
    size = torch.empty(100_000).uniform_(math.log(2**-6), math.log(448), generator=torch.Generator().manual_seed(0))
    values = size.exp() * torch.tensor([1.0, -1.0]).repeat(50_000)
    assert torch.equal(round_mantissa(values, bits=3), values.to(torch.float8_e4m3fn).to(torch.float32))


@pytest.mark.parametrize("dtype", TYPES)
def test_ties_go_to_even_and_the_rest_to_the_nearest(dtype: torch.dtype) -> None:
    # With two bits the neighbours of 1 are 1.25 (odd), 1.5 (even), 1.75 (odd) and 2 (even).
    values = [1.0, 1.0625, 1.125, 1.1875, 1.25, 1.375, 1.5, 1.625, 1.6875, 1.875, 1.9375]
    wanted = [1.0, 1.0, 1.0, 1.25, 1.25, 1.5, 1.5, 1.5, 1.75, 2.0, 2.0]
    assert rounded(values, 2, dtype) == wanted
    assert rounded([-v for v in values], 2, dtype) == [-w for w in wanted]
    assert rounded([v / 64 for v in values], 2, dtype) == [w / 64 for w in wanted]


def test_a_little_more_than_a_tie_goes_up() -> None:
    assert rounded([1.125, 1.125 + 2**-23, 1.375 - 2**-23], 2) == [1.0, 1.25, 1.25]


@pytest.mark.parametrize("bits", range(1, 24))
def test_what_fits_stays_and_rounding_twice_is_rounding_once(bits: int) -> None:
    values = any_float32(2_000)
    values = values[values.abs() < 2.0**127]
    once = round_mantissa(values, bits=bits)
    assert torch.equal(round_mantissa(once, bits=bits), once)
    kept = [1 + 2.0**-bits, -3.0, 0.0, 2.0**-126, 1.5 * 2.0**100]
    assert rounded(kept, bits) == kept
    normal = values.abs() >= 2.0**-126
    assert ((once - values).abs()[normal] <= values.abs()[normal] * 2.0 ** -(bits + 1)).all()


def test_zeros_keep_their_sign() -> None:
    assert [math.copysign(1, x) for x in rounded([0.0, -0.0], 1)] == [1, -1]


def test_bits_that_are_stored_anyway_change_nothing() -> None:
    for dtype in TYPES:
        values = torch.randn(50, dtype=torch.float64).to(dtype)
        assert round_mantissa(values, bits=stored_bits(dtype)) is values
        assert not torch.equal(round_mantissa(values, bits=stored_bits(dtype) - 1), values)
    assert [stored_bits(dtype) for dtype in TYPES] == [52, 23, 7, 10]
    assert [2.0 ** -stored_bits(dtype) for dtype in TYPES] == [torch.finfo(dtype).eps for dtype in TYPES]


def test_shape_and_layout_do_not_matter() -> None:
    values = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    whole = round_mantissa(values, bits=3)
    assert torch.equal(round_mantissa(values.T, bits=3), whole.T)
    assert torch.equal(round_mantissa(values[:, ::2], bits=3), whole[:, ::2])
    assert round_mantissa(torch.tensor(1.3), bits=1).item() == 1.5
