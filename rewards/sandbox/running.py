"""The grading process's end of runs: the server that forks them, and their streams against limits and deadlines.

Used by `rewards.sandbox` and by rewards that connect several runs. Any thread may start runs, also one of many or one
that ends; none is forked from this process, whose threads, memory and open files no program inherits. The server is
started when it is first needed, belongs to this process, and ends with it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rewards.sandbox import spec
from rewards.sandbox.spec import Order

_START_S = 60.0
"""For the server to start, and for a run to get from there to its program."""
_END_S = 15.0
"""For a run to end that was told to."""
_TAIL = 2**18
"""Bytes that are kept of standard error."""


class SandboxError(RuntimeError):
    """A run that did not take place, or whose end is not known: our failure, not the program's."""


class Ending(StrEnum):
    """Why a program ended."""

    EXIT = "exit"
    """By itself, or by a signal; `Result.code` says which."""
    TIMEOUT = "timeout"
    CPU = "cpu"
    MEMORY = "memory"
    """All its processes together had more than they may. One that asks for too much is told so, and goes on."""
    OUTPUT = "output"
    """It wrote more than it may."""
    STOPPED = "stopped"
    """Another run that it served was over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a run."""

    ending: Ending
    code: int
    """Exit code, or minus the number of the signal that ended it."""
    stdout: bytes
    stderr: bytes
    """The end of it."""
    seconds: float
    """Wall clock, from its start."""
    cpu_s: float
    peak_mb: float
    """Largest memory in use by one process."""


class Run:
    """One program under way.

    Args:
        order: what to run.
        inside: in namespaces of its own.
        stdin: bytes to send, or a descriptor to read from instead.
        stdout: a descriptor to write to; None collects it.
        output_bytes: how much it may write.
    """

    def __init__(
        self, order: Order, *, inside: bool, stdin: bytes | int, stdout: int | None, output_bytes: int
    ) -> None:
        self.cpu_s, self._output_bytes = order.cpu_s, output_bytes
        self.ending = Ending.EXIT
        self.unsent = memoryview(stdin if isinstance(stdin, bytes) else b"")
        self.stdout, self.stderr, self._told = bytearray(), bytearray(), bytearray()
        self._num_stderr = 0
        self.began = self.finished = 0.0
        theirs: list[int] = []
        self._ours: list[int] = []
        self._out = self._err = self._report = self._life = self.sink = -1
        try:
            theirs.append(_file_of(spec.encode(order)))
            theirs.append(os.dup(stdin) if isinstance(stdin, int) else self._pipe(theirs, written=True))
            if not isinstance(stdin, int):
                self.sink = self._ours[-1]
            theirs.append(self._pipe(theirs) if stdout is None else os.dup(stdout))
            if stdout is None:
                self._out = self._ours[-1]
            theirs.append(self._pipe(theirs))
            self._err = self._ours[-1]
            theirs.append(self._pipe(theirs))
            self._report = self._ours[-1]
            theirs.append(self._pipe(theirs, written=True))
            self._life = self._ours[-1]
            _Server.of_this_process().send(spec.NAMESPACES if inside else spec.PLAIN, theirs)
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    @property
    def sources(self) -> list[int]:
        """Descriptors to be read from."""
        return [descriptor for descriptor in (self._out, self._err, self._report) if descriptor >= 0]

    @property
    def over(self) -> bool:
        """Its warden is gone, and so is all that belonged to it."""
        return self._report < 0

    def end(self, why: Ending) -> None:
        """Have it killed; one that has ended already is not told."""
        if self._life >= 0:
            self.ending = Ending.EXIT if b'"exit"' in self._told and why is not Ending.OUTPUT else why
            self._life = self._closed(self._life)

    def read(self, descriptor: int) -> None:
        """Take what a source has, or its end."""
        data = os.read(descriptor, 2**16)
        if descriptor == self._report:
            self._told += data
            self.began = self.began or (time.monotonic() if b'"started"' in self._told else 0.0)
            if not data:
                self._report = self._closed(descriptor)
                self.finished = time.monotonic()
        elif not data:
            self._closed(descriptor)
            if descriptor == self._out:
                self._out = -1
            else:
                self._err = -1
        elif descriptor == self._out:
            self.stdout += data[: max(0, self._output_bytes - len(self.stdout) + 1)]
            if len(self.stdout) > self._output_bytes:
                self.end(Ending.OUTPUT)
        else:
            self._num_stderr += len(data)
            self.stderr = (self.stderr + data)[-_TAIL:]
            if self._num_stderr > self._output_bytes:
                self.end(Ending.OUTPUT)

    def write(self) -> None:
        """Send what its standard input takes, and close that at the end."""
        try:
            if self.unsent:
                self.unsent = self.unsent[os.write(self.sink, self.unsent) :]
        except (BrokenPipeError, ConnectionResetError):
            self.unsent = memoryview(b"")
        except BlockingIOError:
            return
        if not self.unsent:
            self.sink = self._closed(self.sink)

    def result(self) -> Result:
        """What became of it, when it is over.

        Raises:
            SandboxError: it never ran, or its warden was lost.
        """
        reports = [json.loads(line) for line in self._told.splitlines()]
        failed = next((report["failed"] for report in reports if "failed" in report), None)
        if failed is not None:
            raise SandboxError(f"a program could not be confined: {failed}")
        last = next((report for report in reports if "exit" in report), None)
        if last is None and self.ending is Ending.EXIT:
            raise SandboxError("the warden of a run was lost")
        ending = self.ending
        if last and ending in (Ending.STOPPED, Ending.TIMEOUT):
            ending = Ending.EXIT  # by itself, just before
        code, cpu_s, peak_mb = (last["exit"], last["cpu_s"], last["peak_mb"]) if last else (-signal.SIGKILL, 0.0, 0.0)
        if last and ending is Ending.EXIT:
            if last["ended"] == "memory":
                ending = Ending.MEMORY
            elif code == -signal.SIGXCPU or (code == -signal.SIGKILL and cpu_s >= self.cpu_s):
                ending = Ending.CPU
        return Result(
            ending=ending,
            code=code,
            stdout=bytes(self.stdout[: self._output_bytes]),
            stderr=bytes(self.stderr),
            seconds=self.finished - self.began,
            cpu_s=cpu_s,
            peak_mb=peak_mb,
        )

    def close(self) -> None:
        """Let go of it; what still runs is killed."""
        for descriptor in [*self._ours]:
            self._closed(descriptor)

    def _closed(self, descriptor: int) -> int:
        os.close(descriptor)
        self._ours.remove(descriptor)
        return -1

    def _pipe(self, theirs: list[int], *, written: bool = False) -> int:
        """Their end of a new pipe; ours, which is written to or read from, is kept."""
        read, write = os.pipe()
        ours, other = (write, read) if written else (read, write)
        os.set_blocking(ours, False)
        self._ours.append(ours)
        return other


def follow(runs: Sequence[Run], *, seconds: float) -> None:
    """Serve the streams of runs until the first of them is over, and then end the others.

    Args:
        seconds: wall clock for all, from when the last has started.

    Raises:
        SandboxError: a run did not start or end in time.
    """
    lead, waited_since = runs[0], time.monotonic()
    while not all(run.over for run in runs):
        started = all(run.began or run.over for run in runs)
        now = time.monotonic()
        since = max(run.began for run in runs) if started else now
        if lead.over and len(runs) > 1:
            for run in runs[1:]:
                run.end(Ending.STOPPED)
        if started and now >= since + seconds:
            for run in runs:
                run.end(Ending.TIMEOUT)
        limit = since + seconds + _END_S if started else waited_since + _START_S
        if now >= limit:
            raise SandboxError("a run did not end" if started else "a run did not start")
        until = since + seconds if started and now < since + seconds else limit
        _exchange([run for run in runs if not run.over], seconds=until - now)


def _exchange(runs: Sequence[Run], *, seconds: float) -> None:
    poll = select.poll()
    of: dict[int, Run] = {}
    for run in runs:
        for descriptor in run.sources:
            of[descriptor] = run
            poll.register(descriptor, select.POLLIN)
        if run.sink >= 0:
            of[run.sink] = run
            poll.register(run.sink, select.POLLOUT)
    for descriptor, _ in poll.poll(max(0.0, seconds) * 1000 + 1):
        run = of[descriptor]
        if descriptor == run.sink:
            run.write()
        elif descriptor in run.sources:
            run.read(descriptor)


def probe() -> Mapping[str, str]:
    """What the kernel grants: empty for a layer that works, else why it does not."""
    return _Server.of_this_process().layers


class _Server:
    """The process that forks runs for this one."""

    _one: _Server | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._sending = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        env = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        env |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        command = [sys.executable, "-P", "-m", "rewards.sandbox.server"]
        with theirs:
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), env=env, start_new_session=True)
        self._socket.settimeout(_START_S)
        try:
            self._socket.sendall(spec.PROBE)
            found = self._socket.recv(2**16)
        except OSError as error:
            found = b""
            problem = str(error)
        else:
            problem = "it ended"
        if not found:
            self.close()
            raise SandboxError(f"the server of sandboxes did not start ({problem}); its message is on standard error")
        self.layers: Mapping[str, str] = json.loads(found)

    @classmethod
    def of_this_process(cls) -> _Server:
        """The server of this process; it is started anew where there is none, or where it was lost."""
        with cls._lock:
            present = cls._one
            if present is None or present.owner != os.getpid() or present.lost:
                if present is not None:
                    present.close()
                cls._one = present = _Server()
            return present

    @classmethod
    def shut(cls) -> None:
        """End it, if there is one."""
        if cls._one is not None:
            cls._one.close()

    @property
    def lost(self) -> bool:
        return self._process.poll() is not None

    def send(self, message: bytes, descriptors: Sequence[int]) -> None:
        """Have a run forked.

        Raises:
            SandboxError: the server is gone.
        """
        with self._sending:
            try:
                socket.send_fds(self._socket, [message], descriptors)
            except OSError as error:
                raise SandboxError(f"the server of sandboxes was lost: {error}") from error

    def close(self) -> None:
        """End it, and what it runs for this process; in a fork of that, only let go of it."""
        self._socket.close()
        if self.owner == os.getpid():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)


atexit.register(_Server.shut)


def _file_of(data: bytes) -> int:
    """A file without a name."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return os.dup(file.fileno())
