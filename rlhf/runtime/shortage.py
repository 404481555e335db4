"""What a cluster lacks for a run, in numbers, and what to change. The refusals of `placement`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError
from rlhf.runtime.cluster import CPUS_PER_REWARD_WORKER, Node, Request


def of_devices(request: Request, nodes: Sequence[Node], *, on_gpus: bool) -> ConfigError:
    """Engines or ranks found no place."""
    have, want = sum(node.gpus for node in nodes), gpus(request)
    if on_gpus and want > have:
        return _of_gpus(request, nodes, want=want, have=have)
    width = request.tensor_parallel
    hold = sum(node.gpus // width for node in nodes)
    if on_gpus and 0 < hold < request.engines:
        problem = (
            f"{_count(request.engines, 'engine')} of {width} GPUs, each on one node, do not fit:"
            f" there is room for {hold} on {_there(nodes)} ({_sizes(nodes, on_gpus=True)})"
        )
        fix = f"use a size that divides the GPUs of a node, or set runtime.engines={hold}"
        return ConfigError("runtime.tensor_parallel", problem, fix=fix)
    return of_cores(request, nodes, on_gpus=on_gpus)


def of_cores(request: Request, nodes: Sequence[Node], *, on_gpus: bool) -> ConfigError:
    """There are GPUs enough, or none are asked for; cores are lacking, on the whole or where they are needed."""
    roles = (
        _Cores("engine", "engines", request.engines, "cpus_per_engine", request.cpus_per_engine),
        _Cores("learner rank", "learner_ranks", request.learner_ranks, "cpus_per_rank", request.cpus_per_rank),
        _Cores("reward worker", "reward_workers", request.reward_workers, "", CPUS_PER_REWARD_WORKER),
    )
    asked = ", ".join(f"{_count(role.number, role.noun)} × {_count(role.cores, 'core')}" for role in roles)
    want = sum(role.number * role.cores for role in roles)
    sharing = ""
    if request.colocate and not on_gpus:
        pairs = min(request.engines, request.learner_ranks)
        want -= pairs * min(request.cpus_per_engine, request.cpus_per_rank)
        sharing = f", {_count(pairs, 'pair')} sharing,"
    have = sum(node.cpus for node in nodes)
    largest = max(roles, key=lambda role: role.number * role.cores)
    key = largest.cores_key if largest.cores > 1 else largest.number_key
    fixes = [f"lower runtime.{key}", "add nodes"]
    if not on_gpus and not request.colocate:
        fixes.append("set runtime.colocate=true")
    problem = f"{asked}{sharing} need {want} cores; there are {have} on {_there(nodes)}"
    if want <= have:
        problem += ", but not together where they are needed"
    return ConfigError(f"runtime.{key}", f"{problem} ({_sizes(nodes, on_gpus=on_gpus)})", fix=", or ".join(fixes))


@dataclass(frozen=True, slots=True)
class _Cores:
    """What one role asks for, and the keys that say so."""

    noun: str
    number_key: str
    number: int
    cores_key: str
    cores: int


def gpus(request: Request) -> int:
    """GPUs of engines and ranks together."""
    of_engines = request.engines * request.tensor_parallel
    if request.colocate:
        return max(of_engines, request.learner_ranks)
    return of_engines + request.learner_ranks


def _of_gpus(request: Request, nodes: Sequence[Node], *, want: int, have: int) -> ConfigError:
    of_engines = request.engines * request.tensor_parallel
    largest = "engines" if of_engines >= request.learner_ranks else "learner_ranks"
    fixes = [f"lower runtime.{largest}", "add nodes"]
    shared = gpus(replace(request, colocate=True))
    if shared <= have and not request.colocate:
        fixes.append(f"set runtime.colocate=true, which needs {shared}")
    together = "sharing them" if request.colocate else "together"
    problem = (
        f"{_count(request.engines, 'engine')} of {_count(request.tensor_parallel, 'GPU')} and"
        f" {_count(request.learner_ranks, 'learner rank')} need {want} GPUs {together};"
        f" there are {have} on {_there(nodes)} ({_sizes(nodes, on_gpus=True)})"
    )
    return ConfigError(f"runtime.{largest}", problem, fix=", or ".join(fixes))


def _there(nodes: Sequence[Node]) -> str:
    return "the node" if len(nodes) == 1 else f"the {len(nodes)} nodes"


def _sizes(nodes: Sequence[Node], *, on_gpus: bool) -> str:
    """`2 × 8 GPUs and 64 cores, 1 × 4 GPUs and 32 cores`."""
    kinds = Counter((node.gpus if on_gpus else 0, node.cpus) for node in nodes)
    parts: list[str] = []
    for (devices, cores), number in kinds.items():
        gpus_too = f"{_count(devices, 'GPU')} and " if devices else ""
        parts.append(f"{number} × {gpus_too}{_count(cores, 'core')}")
    return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
