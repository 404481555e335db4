"""GPUs: there, seen by torch, free, and able to talk to each other."""

from __future__ import annotations

from collections import Counter

from rlhf.doctor.findings import Facts, Finding, Level

GIB = 2**30
MOSTLY_FREE = 0.9
"""Share of a GPU's memory below which somebody else is computing there."""


def gpu(facts: Facts) -> Finding | None:
    """Whether roles can compute on GPUs."""
    if facts.torch is None:
        return None
    need, torch = facts.needs.gpu, facts.torch
    bad = Level.PROBLEM if need else Level.WARNING
    if torch.gpus:
        driver = f", driver {facts.machine.driver}" if facts.machine.driver else ""
        kinds = Counter((gpu.name, gpu.total) for gpu in torch.gpus)
        listed = ", ".join(f"{number} × {name}, {total / GIB:.0f} GiB" for (name, total), number in kinds.items())
        return Finding(title="gpu", level=Level.OK, found=f"{listed}; CUDA {torch.cuda}{driver}")
    if facts.machine.nvidia and not torch.cuda:
        found, fix = "there is one, but torch is a build for CPUs", "install torch's CUDA build (https://pytorch.org)"
        return Finding(title="gpu", level=bad, found=found, fix=fix)
    if facts.machine.nvidia:
        found = f"torch cannot use it: {torch.error or 'it sees none'}"
        fix = f"update the NVIDIA driver for CUDA {torch.cuda}, or check CUDA_VISIBLE_DEVICES and the container's GPUs"
        return Finding(title="gpu", level=bad, found=found, fix=fix)
    if need:
        found, fix = f"none, and {need} asks for one", f"set {need.split('=')[0]}=auto, or use a machine with a GPU"
        return Finding(title="gpu", level=Level.PROBLEM, found=found, fix=fix)
    return Finding(title="gpu", level=Level.OK, found="none; roles compute on CPUs")


def free_memory(facts: Facts) -> Finding | None:
    """Whether somebody else computes there."""
    if facts.torch is None or not facts.torch.gpus:
        return None
    busy = [
        f"GPU {n}: {gpu.free / GIB:.0f} of {gpu.total / GIB:.0f} GiB"
        for n, gpu in enumerate(facts.torch.gpus)
        if gpu.free < MOSTLY_FREE * gpu.total
    ]
    if not busy:
        return Finding(title="gpu memory", level=Level.OK, found="free")
    fix = "end the other process (nvidia-smi names it), or choose other GPUs with CUDA_VISIBLE_DEVICES"
    return Finding(title="gpu memory", level=Level.WARNING, found=f"free on {', '.join(busy)}", fix=fix)


def bfloat16(facts: Facts) -> Finding | None:
    """What 16-bit arithmetic costs here."""
    if facts.torch is None:
        return None
    if facts.torch.gpus:
        if all(gpu.bf16 for gpu in facts.torch.gpus):
            return Finding(title="bfloat16", level=Level.OK, found="in hardware")
        return Finding(title="bfloat16", level=Level.NOTE, found="not on these GPUs; runs compute in float32")
    if {"avx512_bf16", "amx_bf16"} & facts.machine.cpu_flags:
        return Finding(
            title="bfloat16", level=Level.OK, found="in hardware; runs on CPUs compute in float32 unless told"
        )
    return Finding(title="bfloat16", level=Level.NOTE, found="not on this CPU; runs compute in float32")


def collectives(facts: Facts) -> Finding | None:
    """How learner ranks talk to each other: NCCL on GPUs, gloo on CPUs."""
    if facts.torch is None:
        return None
    wanted = facts.bad("deepspeed")
    if not facts.torch.gpus:
        if facts.torch.gloo:
            return Finding(title="collectives", level=Level.OK, found="gloo")
        found, fix = "torch lacks gloo: one learner rank at most", "install a torch wheel from PyPI"
        return Finding(title="collectives", level=wanted, found=found, fix=fix)
    if facts.torch.nccl:
        return Finding(title="collectives", level=Level.OK, found=f"NCCL {facts.torch.nccl}")
    found, fix = "torch lacks NCCL: one GPU at most", "install torch's CUDA build for Linux"
    return Finding(title="collectives", level=wanted, found=found, fix=fix)


CHECKS = (gpu, free_memory, bfloat16, collectives)
