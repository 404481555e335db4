"""Parameters that ZeRO-3 has shared out: each rank holds a run of the flattened whole, the last one padded with zeros.

A parameter that is not shared out is its own only part. Nothing here needs DeepSpeed to be installed.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional


def shape(tensor: Tensor) -> tuple[int, ...]:
    """Of the whole of a tensor."""
    return tuple(vars(tensor).get("ds_shape", tensor.shape))


def part(tensor: Tensor) -> Tensor:
    """What this rank holds of a parameter, detached; to be written in place."""
    return vars(tensor).get("ds_tensor", tensor).detach()


def cut(whole: Tensor, tensor: Tensor) -> Tensor:
    """What this rank would hold of a value that a parameter is to have, in the form of `part`."""
    held = vars(tensor).get("ds_tensor")
    if held is None:
        return whole
    size, rank = held.numel(), dist.get_rank()
    own = whole.flatten()[rank * size : (rank + 1) * size]
    return functional.pad(own, (0, size - own.numel()))


@torch.no_grad()
def put(tensor: Tensor, whole: Tensor) -> None:
    """Give a parameter a value; every rank writes its own part."""
    part(tensor).copy_(cut(whole.to(part(tensor).device), tensor))
