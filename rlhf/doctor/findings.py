"""What a check says, and what the checks need to know to say it.

A check is a function from `Facts` to one `Finding`, or to None where it does not apply; it reads nothing itself, so
that any machine can be described to it in a test. Gathering facts is `look`'s part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. Only a problem makes the command's exit code 1."""

    OK = "ok"
    NOTE = "note"
    """Absent, and not needed for what is asked."""
    WARNING = "warning"
    """Works, but slower, less safely, or not for everything."""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    title: str
    level: Level
    found: str
    fix: str = ""
    """What to do about it; a command where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What is asked of this machine: by a config, or nothing beyond the local runtime."""

    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    """Optional import names, and the config key that needs each."""
    gpu: str = ""
    """The key that asks for a GPU."""
    nodes: int = 1
    object_store: int | None = None
    """Bytes of shared memory of a Ray that the run starts itself; None leaves it to Ray."""
    offline_model: str = ""
    """The key that names a model on this machine, so that nobody need ask the hub."""

    @property
    def cluster(self) -> bool:
        return "ray" in self.packages


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """An import that was tried in a process of its own."""

    seconds: float
    error: str = ""
    """The last line of the traceback, or that it did not end; empty when it worked."""
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One CUDA device."""

    name: str
    total: int
    free: int
    bf16: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """What torch itself says."""

    cuda: str = ""
    """CUDA release that it was built for; empty for a CPU build."""
    gpus: Sequence[Gpu] = ()
    error: str = ""
    """Why it sees no GPU, where it says so."""
    nccl: str = ""
    gloo: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Cores, memory, disks and limits. Sizes in bytes."""

    python: tuple[int, int, int]
    cores: int
    """That this process may run on."""
    quota: float | None
    """Cores' worth of time that a container may use."""
    load: float
    memory: int
    memory_available: int
    memory_limit: int | None
    """Of a container."""
    shm: int
    """Free in /dev/shm."""
    files_soft: int
    files_hard: int
    here: str
    here_free: int
    temp: str
    temp_free: int
    temp_total: int
    cpu_flags: frozenset[str]
    nvidia: bool
    """There is an NVIDIA device, whatever torch says."""
    driver: str
    """Version of its driver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Names and sockets."""

    loopback: str
    """Why it cannot be listened on; empty when it can."""
    hostname: str
    address: str
    """That the host's name leads to; empty for none."""
    ray_token: str
    """A file that makes Ray turn its authentication on."""
    ray_address: str
    """Why the Ray at RAY_ADDRESS cannot be reached; empty when it can, or none is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """What holds for processes that grade."""

    network: str
    dies_with_parent: bool
    memory_limited: bool
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that was looked at."""

    needs: Needs
    installed: Mapping[str, str]
    """Version by distribution name, normalised."""
    requires: Mapping[str, Sequence[str]]
    """Requirements of the distributions that have to fit each other."""
    probes: Mapping[str, Probe]
    """By import name."""
    torch: Torch | None
    """None where torch cannot be imported."""
    machine: Machine
    network: Network
    sandbox: Sandbox
    env: Mapping[str, str]

    def wanted(self, package: str) -> bool:
        """Whether a config needs an optional package."""
        return package in self.needs.packages

    def bad(self, package: str) -> Level:
        """How bad it is that something about an optional package is wrong."""
        return Level.PROBLEM if self.wanted(package) else Level.WARNING


Check = Callable[[Facts], Finding | None]
