"""What the ranks of `test_model_states.py` do: train for real, and count the bytes of their own tensors."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch
import zero_work
from zero_work import Setup


@dataclass(frozen=True)
class Held:
    """Bytes of the tensors that a learner added to a process."""

    after_backward: int
    after_step: int


def held(rank: int, size: int, setup: Setup) -> Held:
    """In the second update, when everything has been allocated."""
    gc.collect()
    gc.freeze()  # what was there before is not looked at
    learner = zero_work.make(setup)
    batches, counts = zero_work.batches_of(0, size=size)
    learner.forward_backward(batches[rank], counts=counts)
    learner.optim_step()
    learner.forward_backward(batches[rank], counts=counts)
    after_backward = live()
    learner.optim_step()
    return Held(after_backward, live())


def live() -> int:
    """Bytes of all distinct storages of the tensors made since `gc.freeze`."""
    gc.collect()
    storages: dict[int, int] = {}
    for tensor in [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]:
        # Shards and gradients are attributes, which the collector does not list.
        own = (tensor, vars(tensor).get("ds_tensor"), vars(tensor).get("grad_accum"))
        for held in (*own, tensor.grad if tensor.is_leaf else None):
            if held is not None and held.device.type == "cpu":
                storages[held.untyped_storage().data_ptr()] = held.untyped_storage().nbytes()
    return sum(storages.values())
