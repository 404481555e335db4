"""One rank of a real DeepSpeed run that counts its own tensors: bytes per parameter, printed as JSON by rank 0.

Started twice by `test_model_states.py`: `python live_states.py RANK PORT CASE …`, a case being `2-bf16-offload`.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

RANKS = 2


def main() -> None:
    rank, port = sys.argv[1:3]
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(RANKS), "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "DS_ACCELERATOR": "cpu"}
    import deepspeed

    deepspeed.init_distributed("gloo")
    gc.freeze()  # what has been imported need not be searched for tensors
    found = {
        name: measure(int(stage), bf16=precision == "bf16", offload=bool(offload))
        for name in sys.argv[3:]
        for stage, precision, *offload in [name.split("-")]
    }
    if rank == "0":
        print(json.dumps(found))


def measure(stage: int, *, bf16: bool, offload: bool) -> dict[str, float]:
    """After the backward pass and after the step of the second update, when everything has been allocated."""
    import deepspeed
    import torch

    before = live()
    model = torch.nn.Sequential(*[torch.nn.Linear(128, 128, bias=False) for _ in range(16)])
    parameters = sum(p.numel() for p in model.parameters())
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": parameters, "allgather_bucket_size": parameters}
    if stage == 3:
        zero |= {"stage3_param_persistence_threshold": 0}
    if offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    config: dict[str, Any] = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero}
    config |= {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    config |= {"bf16": {"enabled": bf16}}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    del optimizer, model
    x = torch.ones(1, 128, dtype=torch.bfloat16 if bf16 else torch.float32)
    engine.backward(engine(x).float().square().mean())
    engine.step()
    engine.backward(engine(x).float().square().mean())
    backward = live() - before
    engine.step()
    stepped = live() - before
    engine.destroy()
    return {"backward": backward / parameters, "stepped": stepped / parameters, "parameters": parameters}


def live() -> int:
    """Bytes of all distinct storages that a tensor of this process lies in."""
    import torch

    gc.collect()
    storages: dict[int, int] = {}
    for tensor in [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]:
        # Partitions of stage 3 and gradients are attributes, which the collector does not list.
        for own in (tensor, vars(tensor).get("ds_tensor"), tensor.grad if tensor.is_leaf else None):
            if own is not None and own.device.type == "cpu":
                storages[own.untyped_storage().data_ptr()] = own.untyped_storage().nbytes()
    return sum(storages.values())


if __name__ == "__main__":
    main()
