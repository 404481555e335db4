"""The process that forks every run: `python -m rewards.sandbox.server`, started by `rewards.sandbox.running`.

It has one thread and one socket, its standard input, and lives as long as that. A message brings six descriptors: a
file with the order (a `spec.Order`), the program's standard streams, a pipe for reports, and a line of life that the
grading process holds the other end of. The server forks a *warden* for it, into namespaces of its own where they work,
and knows nothing of the run: it never reads an order. The warden prepares the place, starts the program, and reports
one JSON object per line:

    {"started": true}                                                the program was executed: its clock runs
    {"exit": 0, "cpu_s": 0.02, "peak_mb": 9.1, "ended": "memory"}    it ended; `ended` where the warden ended it
    {"failed": "…"}                                                  a protection could not be put up: it never ran

When the line of life closes, at the deadline or because the grading process is gone, the warden ends, and all that the
program started with it: in a namespace the kernel sees to that, else they cannot have left the group that is killed.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from rewards.sandbox import kernel, namespaces, program, scratch
from rewards.sandbox.spec import DESCRIPTORS, NAMESPACES, PROBE, Order, decode

_LOOK_S = 0.03
"""How often memory is summed up."""
_GONE_S = 5.0
"""How long to wait for the end of what was killed."""


def main() -> None:
    """Serve until the socket closes."""
    # A scheduler may signal every process of a job, and a terminal every process at it; grading ends with its parent.
    for ignored in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    os.chdir("/")
    served = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    while True:
        message, rights, _, _ = served.recvmsg(16, socket.CMSG_SPACE(DESCRIPTORS * 4))
        if not message:
            return
        descriptors = array.array("i")
        for _, _, data in rights:
            descriptors.frombytes(data)
        if message == PROBE:
            served.sendall(json.dumps(_probe()).encode())
        elif len(descriptors) == DESCRIPTORS:
            _fork(message == NAMESPACES, served.fileno(), [*descriptors])
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _probe() -> dict[str, str]:
    """What this kernel grants this user: empty text for what works, else why not. Each is tried, in a child."""
    from rewards.sandbox import landlock, seccomp

    def whole_root() -> None:
        namespaces.furnish(["/usr"], {}, scratch_mb=1)

    def filtered() -> None:
        kernel.gain_no_privileges()
        seccomp.install(seccomp.Refused())

    def domain() -> None:
        kernel.gain_no_privileges()
        landlock.restrict(read=["/usr"], write=[], network=False)

    def scope() -> None:
        if (version := landlock.abi()) < landlock.SIGNALS_ABI:
            raise OSError(f"Landlock is of version {version}, which lets signals out")

    return {
        "namespaces": _tried(whole_root, inside=True),
        "seccomp": _tried(filtered),
        "landlock": _tried(domain),
        "landlock_signals": _tried(scope),
    }


def _tried(attempt: Callable[[], None], *, inside: bool = False) -> str:
    read, write = os.pipe()
    try:
        child = _branch(inside)
        if not child:
            problem = ""
            try:
                attempt()
            except Exception as error:
                problem = str(error)
            os.write(write, problem.encode()[:1000])
            os._exit(0)
    except OSError as error:
        os.close(read)
        os.close(write)
        return str(error)
    os.close(write)
    os.waitpid(child, 0)
    problem = os.read(read, 1000).decode(errors="replace")
    os.close(read)
    return problem


def _fork(inside: bool, served: int, descriptors: list[int]) -> None:
    """Start a warden; what hinders that goes to the report."""
    try:
        if _branch(inside):
            return
    except OSError as error:
        _tell(descriptors[4], {"failed": f"namespaces: {error}"})
        return
    try:
        os.close(served)
        _Warden(*descriptors, inside=inside).serve()
    except BaseException as error:
        _tell(descriptors[4], {"failed": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _branch(inside: bool) -> int:
    """Fork, into new namespaces if asked; there the child waits for its users to be named."""
    if not inside:
        return os.fork()
    ready, go = os.pipe()
    child = kernel.clone(namespaces.FLAGS)
    if child:
        os.close(ready)
        try:
            namespaces.map_users(child)
            os.write(go, b".")
        finally:
            os.close(go)
        return child
    os.close(go)
    if not os.read(ready, 1):
        os._exit(1)
    os.close(ready)
    return 0


class _Warden:
    """First process of a run: prepares its place, starts it, watches it, and takes all of it down."""

    def __init__(
        self, order: int, stdin: int, stdout: int, stderr: int, report: int, life: int, *, inside: bool
    ) -> None:
        with os.fdopen(order, "rb") as file:
            file.seek(0)
            self._order: Order = decode(file.read())
        self._streams = (stdin, stdout, stderr)
        self._report, self._life, self._inside = report, life, inside

    def serve(self) -> None:
        if self._inside:
            namespaces.furnish(self._order.readable, self._order.links, scratch_mb=self._order.scratch_mb)
            program.place(self._order.files, namespaces.SCRATCH, owner=namespaces.program_user())
        # The program may belong to the same user, and must not look into this process.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        said, problem = os.pipe()
        warden = os.getpid()
        child = os.fork()
        if not child:
            program.become(self._order, self._streams, problem, warden=warden, inside=self._inside)
        os.close(problem)
        for descriptor in self._streams:
            os.close(descriptor)
        found = os.read(said, 4096)
        if found:
            _tell(self._report, {"failed": found.decode(errors="replace")})
            os._exit(0)
        _tell(self._report, {"started": True})
        self._watch(child)

    def _watch(self, child: int) -> None:
        ended = ""
        poll = select.poll()
        descriptor = os.pidfd_open(child)
        poll.register(descriptor, select.POLLIN)
        poll.register(self._life, select.POLLIN)
        pause = _LOOK_S * 1000 if self._inside and self._order.processes > 1 else None
        while True:
            ready = {found for found, _ in poll.poll(pause)}
            if descriptor in ready:
                break
            if self._life in ready:
                self._end(child)
                if not self._inside:  # whoever would delete it may be gone
                    scratch.delete(self._order.scratch)
                return
            if not ended and _resident_mb() > self._order.memory_mb:
                ended = "memory"
                os.kill(child, signal.SIGKILL)
        if not self._inside:
            os.killpg(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
        self._end_rest()
        code = os.waitstatus_to_exitcode(status)
        cpu_s, peak_mb = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        _tell(self._report, {"exit": code, "cpu_s": cpu_s, "peak_mb": peak_mb, "ended": ended})

    def _end(self, child: int) -> None:
        """Kill the program, not yet waited for, and what it started."""
        if not self._inside:
            os.killpg(child, signal.SIGKILL)
        self._end_rest()

    def _end_rest(self) -> None:
        """See what was killed gone; in a namespace, kill whatever there is."""
        end = time.monotonic() + _GONE_S
        while time.monotonic() < end:
            if self._inside:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                time.sleep(0.001)
                continue
            return


def _resident_mb() -> float:
    """Memory in use by all processes of this namespace but this one."""
    pages = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir("/proc"):
            if entry.isdigit() and entry != "1":
                with contextlib.suppress(OSError), open(f"/proc/{entry}/statm", "rb") as file:
                    pages += int(file.read().split()[1])
    return pages * resource.getpagesize() / 2**20


def _tell(report: int, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        os.write(report, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
