"""The cluster runtime: engines, learner ranks and graders are Ray actors, on one machine or many.

It joins the Ray at `address` or starts one on this machine. Actors belong to the driver's job: when the driver ends,
whatever ends it, Ray ends them. This file is what a config names; `on_ray` does the work, and is imported only when a
run starts, because Ray reads its environment once, when it is imported.

Safe by default: a Ray that we start asks every caller for a token of this run.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from dataclasses import dataclass, field

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.runtime import transports, watchdog
from rlhf.runtime.cluster import Request
from rlhf.runtime.roles import Runtime, Site

LOST_NODE = ("end", "shrink")


@dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """How weights travel from ranks to engines."""

    bucket_mib: int = 64
    """Bytes that travel at once, in MiB: the extra memory of a sync."""
    verify: bool = False
    """Compare a checksum of every tensor on both sides."""
    transport: str = transports.AUTO
    """auto: as the engine takes weights by itself (`engine.weight_transfer`) where that works, else through the object
    store of Ray; object_store: that in any case; weight_transfer: the engine's own, or an error that says why not."""

    def __post_init__(self) -> None:
        if self.transport not in transports.CHOICES:
            fix = did_you_mean(self.transport, transports.CHOICES)
            raise ConfigError("transport", f"'{self.transport}' is not offered", fix=fix)
        if self.bucket_mib < 1:
            raise ConfigError("bucket_mib", f"{self.bucket_mib} holds no weight", fix="use 1 or more")


@dataclass(frozen=True, kw_only=True)
class Config(Request):
    """A run over several processes, on one machine or many."""

    address: str | None = None
    """Of a running Ray: `auto` or host:port; null starts one on this machine."""
    nodes_wait_s: float = 300.0
    """How long a start waits for `nodes`, in seconds; nobody waits for a lost one."""
    in_flight: int = 256
    """Samples that an engine works on at once; an engine that cannot be interrupted gets as many in one call."""
    object_store_mib: int = 512
    """Shared memory of a Ray that is started here, in MiB."""
    max_restarts: int = 3
    """How often a lost learner is brought back from the last checkpoint before the run ends."""
    on_lost_node: str = "end"
    """When fewer than `nodes` are left: `end` ends the run (exit code 70), `shrink` goes on with fewer engines,
    then fewer ranks."""
    sync: SyncConfig = field(default_factory=SyncConfig)
    deadlines: watchdog.Deadlines = field(default_factory=watchdog.Deadlines)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_flight < 1:
            raise ConfigError("in_flight", f"{self.in_flight} leaves an engine nothing to do", fix="use 1 or more")
        if self.on_lost_node not in LOST_NODE:
            fix = did_you_mean(self.on_lost_node, LOST_NODE)
            raise ConfigError("on_lost_node", f"'{self.on_lost_node}' is not offered", fix=fix)


def start(cfg: Config, site: Site) -> Runtime:
    """Join or start Ray and reserve what the run asks for.

    Raises:
        ConfigError: Ray is not installed or not there, its nodes do not come, or the run does not fit them.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("runtime.name", "ray is not installed", fix="pip install 'rlhf[cluster]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if cfg.address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from rlhf.runtime import on_ray

    return on_ray.start(cfg)
