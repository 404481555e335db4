"""The `transformers_engine`, in a process that something happens to: once per fault, while it samples a given step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request
from rollout import transformers_engine
from rollout.transformers_engine import TransformersEngine

PORTS = Path("ports.txt")


@dataclass(frozen=True, kw_only=True)
class Config(transformers_engine.Config):
    """What happens, and when."""

    faults: list[str] = field(default_factory=list[str])
    """`kill@7`: SIGKILL at the first sample of step 7; `stop@7`: SIGSTOP; `node@7`: SIGKILL to Ray's process of the
    node that is not the first, at the first sample of step 7 or a later one; `look@7`: nothing, but the ports that are
    listened on then are written down."""


def build(cfg: Config, spec: EngineSpec) -> BreakingEngine:
    """See `rollout.transformers_engine`."""
    return BreakingEngine(*spec.load(), cfg)


def strike(faults: Sequence[str], step: int) -> None:
    """Do what is due and has not happened before."""
    for fault in faults:
        kind, _, at = fault.partition("@")
        if step < int(at) or (kind != "node" and step > int(at)):
            continue
        try:
            Path(f".struck-{fault}").touch(exist_ok=False)
        except FileExistsError:
            continue
        if kind == "node":
            _lose_a_node()
        elif kind == "look":
            PORTS.write_text("\n".join(_listening()))
        else:
            os.kill(os.getpid(), signal.SIGSTOP if kind == "stop" else signal.SIGKILL)


def _listening() -> Iterator[str]:
    """Address and process of every port that this run's Ray, its driver and its actors listen on."""
    import psutil

    token = os.environ["RAY_AUTH_TOKEN"]
    driver = psutil.Process().parents()[1].pid
    for process in psutil.process_iter():
        try:
            if process.pid == driver or process.environ().get("RAY_AUTH_TOKEN") == token:
                found = process.net_connections("tcp")
                yield from (f"{c.laddr.ip} {process.name()}" for c in found if c.status == psutil.CONN_LISTEN)
        except psutil.Error:
            continue


def _lose_a_node() -> None:
    """Kill Ray's process of the node that is not the first, and answer only when Ray knows."""
    import psutil
    import ray

    [lost] = [n["NodeID"] for n in ray.nodes() if n["Alive"] and "node:__internal_head__" not in n["Resources"]]
    [raylet] = [p for p in psutil.process_iter(["cmdline"]) if f"--node_id={lost}" in (p.info["cmdline"] or [])]
    raylet.kill()
    while any(node["NodeID"] == lost and node["Alive"] for node in ray.nodes()):
        time.sleep(0.1)


class BreakingEngine(TransformersEngine):
    """Struck before it answers."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._faults: list[str] = arguments[-1].faults  # type: ignore[union-attr]

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        completions = super().generate(requests, sampling=sampling)
        strike(self._faults, int(requests[0].id.split("-")[1]))
        return completions
