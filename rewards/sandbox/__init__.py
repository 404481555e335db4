"""Runs programs that nobody trusts, within limits, and tells what became of them.

    with one `Sandbox`, from any thread, asyncio (through `asyncio.to_thread`) or Ray actor, as root or as a user:

    box = Sandbox(SandboxConfig())
    result = box.run(box.python("print(input()[::-1])"), stdin=b"abc")       # result.stdout == b"cba\n"

Layers, each tried once at the start; `Sandbox.protections()` tells which are there, and of those that are not, why:

    layer        what it does                                                              asks for
    namespaces   private root, processes, network, shared memory (`namespaces`)            user namespaces
    landlock     opens no file but those named; signals nobody outside (`landlock`)        Linux 6.2, for signals 6.12
    seccomp      no sockets, no look into other processes, … (`seccomp`)                   x86-64 or arm64
    limits       address space, CPU, file size, open files, number of processes            Linux

`SandboxConfig.require` names what has to be protected. Where no layer does, a `ConfigError` says so before anything
runs. What was found to work and fails later stops the run (`SandboxError`): a program never runs with less.

    network      no socket can be made; with namespaces there is no interface either
    files        reads only the system's programs and libraries and this Python's; writes only its scratch folder, which
                 is empty but for its own files, new for every run, and deleted after it
    processes    at most `processes`, threads included; without namespaces one process, with any number of threads
    signals      reach no other process, nor is the memory or environment of one readable

At the end of a run, whatever it was, all its processes are killed, daemons too. Its environment is made here. Nothing
is handed over but its files and its input, so what it is compared with is not there to be found.

What is NOT protected:
  * The kernel. A program that finds a hole in it is out; that is what virtual machines are for.
  * Time and noise on the machine: programs compete for processors, caches and disks with what trains beside them.
    CPU time and address space are limited for each process; with namespaces, memory in use is also summed up, every
    30 ms, and `scratch_mb` comes on top of it.
  * Secrets in readable places: `/usr`, `/lib`, `/bin` and the folders of this Python, with all its packages.
  * Without namespaces: which paths exist, the disk beyond `file_mb` per file, and what lies in the scratch folder,
    which others of this user can see. Modes, owners and times of files are then out of reach by refusing to change any.
  * What a program prints. It is data of the model's making, up to `output_kb`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rewards.sandbox import running, scratch
from rewards.sandbox.namespaces import SCRATCH
from rewards.sandbox.running import Ending, Result, Run, SandboxError
from rewards.sandbox.spec import Order
from rlhf.core.errors import ConfigError, did_you_mean

__all__ = ["Ending", "Program", "Protections", "Result", "Sandbox", "SandboxConfig", "SandboxError"]

KINDS = ("network", "files", "processes", "signals")
"""What can be required."""

_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
)
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "USER": "nobody",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
_FIXES = {
    "namespaces": "let users make namespaces (sysctl user.max_user_namespaces and "
    "kernel.apparmor_restrict_unprivileged_userns; in a container, its seccomp profile)",
    "landlock": "boot Linux 6.2 or later with lsm=…,landlock",
    "landlock_signals": "use Linux 6.12 or later",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or arm64",
}


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """What a program may use, and what must be kept from it."""

    require: list[str] = field(default_factory=lambda: [*KINDS])
    """What must be protected, or nothing runs: network, files, processes, signals."""
    namespaces: bool = True
    """A private root with processes of its own, where the kernel grants it; false leaves it to the other layers."""
    cpu_s: int = 10
    """CPU seconds of one process."""
    memory_mb: int = 1024
    """Address space of one process; with namespaces also the memory in use by all together."""
    processes: int = 16
    """Processes and threads at once. 1 forbids new processes and leaves threads."""
    file_mb: int = 16
    """Largest file that it may write."""
    scratch_mb: int = 64
    """With namespaces, all that it may write: the scratch folder lies in memory."""
    open_files: int = 64
    """Files, pipes and the like that one process may have open."""
    output_kb: int = 1024
    """Standard output, and standard error, that it may write; beyond it is killed."""
    readable: list[str] = field(default_factory=list[str])
    """Folders and files that it may read and execute besides the system's and this Python's."""

    def __post_init__(self) -> None:
        for kind in self.require:
            if kind not in KINDS:
                raise ConfigError("require", f"'{kind}' is no protection", fix=did_you_mean(kind, KINDS))
        least = {
            "cpu_s": 1,
            "memory_mb": 64,
            "processes": 1,
            "file_mb": 0,
            "scratch_mb": 1,
            "open_files": 16,
            "output_kb": 1,
        }
        for name, smallest in least.items():
            if (value := vars(self)[name]) < smallest:
                raise ConfigError(name, f"{value} is too little", fix=f"use {smallest} or more")
        for path in self.readable:
            if not os.path.isabs(path) or os.path.realpath(path) == "/":
                problem = f"'{path}' is no folder or file by its full path"
                raise ConfigError("readable", problem, fix="name what is needed, for example /opt/julia")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run."""

    argv: Sequence[str]
    """The executable by its full path, and its arguments."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Text files in the folder that it starts in, by plain name."""

    def __post_init__(self) -> None:
        for name in self.files:
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise ValueError(f"'{name}' is no plain file name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Protections:
    """Which layers protect what on this system; an empty entry is not protected."""

    network: tuple[str, ...]
    files: tuple[str, ...]
    processes: tuple[str, ...]
    signals: tuple[str, ...]
    missing: Mapping[str, str]
    """Why the layers that are not there are not."""

    def by(self, kind: str) -> tuple[str, ...]:
        """The layers that protect one of `KINDS`."""
        return {"network": self.network, "files": self.files, "processes": self.processes, "signals": self.signals}[
            kind
        ]


class Sandbox:
    """A place for programs.

    Raises:
        ConfigError: something that the config requires cannot be protected here.
    """

    def __init__(self, cfg: SandboxConfig | None = None) -> None:
        self._cfg = cfg or SandboxConfig()
        if sys.platform != "linux":
            raise ConfigError("require", f"{sys.platform} has none of the layers", fix="grade programs on Linux")
        told = dict(running.probe())
        if not self._cfg.namespaces:
            told["namespaces"] = "the config leaves them out"
        self._has = {layer: not why for layer, why in told.items()}
        self._protections = _protections(told)
        for kind in self._cfg.require:
            if not self._protections.by(kind):
                raise _unprotected(kind, told)
        named = [*_SYSTEM, sys.prefix, sys.base_prefix, *self._cfg.readable]
        self._readable, self._links = _visible(named)

    def protections(self) -> Protections:
        """What holds here."""
        return self._protections

    def python(self, source: str, *, files: Mapping[str, str] | None = None) -> Program:
        """A Python program, run by the interpreter of this process in isolated mode, as `main.py`."""
        return Program(argv=[sys.executable, "-I", "-X", "utf8", "main.py"], files={**(files or {}), "main.py": source})

    def run(self, program: Program, *, stdin: bytes = b"", seconds: float = 10.0) -> Result:
        """Run a program to its end.

        Args:
            seconds: wall clock, from its start.

        Raises:
            SandboxError: it could not be run as it should have been.
        """
        return self.run_connected([program], stdin=stdin, seconds=seconds)[0]

    def run_connected(
        self, programs: Sequence[Program], *, stdin: bytes = b"", seconds: float = 10.0
    ) -> tuple[Result, ...]:
        """Run one program, or two that talk: each reads what the other prints. When the first ends, so does the second.

        Args:
            stdin: for a single program.
        """
        if len(programs) not in (1, 2):
            raise ValueError(f"{len(programs)} programs cannot be connected")
        inside = self._has["namespaces"]
        with contextlib.ExitStack() as kept, contextlib.ExitStack() as ends:
            runs: list[Run] = []
            talks = [(stdin, None)] if len(programs) == 1 else _crossed(ends)
            for program, (source, sink) in zip(programs, talks, strict=True):
                folder = "" if inside else kept.enter_context(scratch.folder(program.files))
                order, output_bytes = self._order(program, folder), self._cfg.output_kb * 1024
                runs.append(Run(order, inside=inside, stdin=source, stdout=sink, output_bytes=output_bytes))
                kept.callback(runs[-1].close)
            ends.close()
            running.follow(runs, seconds=seconds)
            return tuple(run.result() for run in runs)

    def _order(self, program: Program, folder: str) -> Order:
        cfg = self._cfg
        home = folder or SCRATCH
        return Order(
            argv=program.argv,
            files=program.files,
            environment=_ENVIRONMENT | {"HOME": home, "TMPDIR": home, "PWD": home},
            readable=self._readable,
            links=self._links,
            scratch=folder,
            memory_mb=cfg.memory_mb,
            cpu_s=cfg.cpu_s,
            file_mb=cfg.file_mb,
            scratch_mb=cfg.scratch_mb,
            processes=cfg.processes,
            open_files=cfg.open_files,
            landlock=self._has["landlock"],
            signals_scoped=self._has["landlock"] and self._has["landlock_signals"],
            seccomp=self._has["seccomp"],
        )


def _crossed(ends: contextlib.ExitStack) -> list[tuple[bytes | int, int | None]]:
    """Where each of two programs reads and writes; the descriptors are closed with `ends`."""
    (first, to_first), (second, to_second) = os.pipe(), os.pipe()
    for descriptor in (first, to_first, second, to_second):
        ends.callback(os.close, descriptor)
    return [(first, to_second), (second, to_first)]


def _protections(told: Mapping[str, str]) -> Protections:
    has = {layer for layer, why in told.items() if not why}

    def held(*layers: str) -> tuple[str, ...]:
        return tuple(layer for layer in layers if layer in has)

    # Landlock lets modes and owners of files be changed; that it needs a filter for, or that there are none in reach.
    files = held("namespaces", "landlock") if has & {"namespaces", "seccomp"} else ()
    signals = held("namespaces", "seccomp")
    return Protections(
        network=held("namespaces", "seccomp"),
        files=files,
        processes=held("namespaces", "seccomp"),
        signals=(*signals, *(["landlock"] if {"landlock", "landlock_signals"} <= has else [])),
        missing={layer: why for layer, why in told.items() if why},
    )


def _unprotected(kind: str, told: Mapping[str, str]) -> ConfigError:
    layers = ("namespaces", "landlock", "seccomp") if kind == "files" else ("namespaces", "seccomp")
    why = "; ".join(f"{layer}: {told[layer]}" for layer in layers if told[layer])
    fixes = ", or ".join(_FIXES[layer] for layer in layers if told[layer])
    fix = f"{fixes}; or remove '{kind}' from this key and run what models write without that protection"
    return ConfigError("require", f"this system does not protect {kind} ({why})", fix=fix)


def _visible(named: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What lies behind some paths, each place once and none below another; and which of the paths are links."""
    existing = [os.path.abspath(path) for path in named if os.path.exists(path)]
    links = {path: real for path in existing if (real := os.path.realpath(path)) != path}
    places = list[str]()
    for real in sorted({os.path.realpath(path) for path in existing}):
        if not any(real.startswith(f"{place}/") for place in places):
            places.append(real)
    return places, links
