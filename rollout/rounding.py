"""Rounds floating-point numbers to fewer bits: the precision of a smaller format, without its hardware.

Used by `rollout.transformers_engine`, whose sampler may be less precise than the trainer. Only the mantissa gets
shorter, the exponent keeps its range: 7 bits are bfloat16 exactly, 3 bits are fp8 e4m3 where that is neither subnormal
nor saturated.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a type is stored: the integers of its width, and the bits of its mantissa."""

    integer: torch.dtype
    mantissa_bits: int


_LAYOUTS = {
    torch.float64: _Layout(torch.int64, 52),
    torch.float32: _Layout(torch.int32, 23),
    torch.bfloat16: _Layout(torch.int16, 7),
    torch.float16: _Layout(torch.int16, 10),
}


def stored_bits(dtype: torch.dtype) -> int:
    """Bits of the mantissa that a floating-point type stores; the leading 1 is not one of them."""
    return _LAYOUTS[dtype].mantissa_bits


def round_mantissa(values: Tensor, *, bits: int) -> Tensor:
    """The nearest numbers whose mantissa has `bits` stored bits, ties to even.

    The next power of two beyond the largest finite number is infinity, as in any conversion; infinities and nan stay.

    Args:
        values: of any shape; float64, float32, bfloat16 or float16.
        bits: 1 or more.

    Returns:
        A tensor of the same type and shape. `values` itself when its type stores no more bits than these.
    """
    layout = _LAYOUTS[values.dtype]
    dropped = layout.mantissa_bits - bits
    if dropped <= 0:
        return values
    # Sign, exponent and mantissa in one integer: a carry out of the mantissa raises the exponent, which is what
    # rounding up to the next power of two means. One less than half, plus the last bit kept, sends ties to even.
    pattern = values.view(layout.integer)
    last_kept = (pattern >> dropped) & 1
    rounded = (pattern + (2 ** (dropped - 1) - 1) + last_kept) & -(2**dropped)
    return torch.where(values.isfinite(), rounded.view(values.dtype), values)
