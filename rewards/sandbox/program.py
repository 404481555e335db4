"""From a fork of the server to the program under test: limits, another user, Landlock, a filter, and `execve`.

Called by a warden, in a fresh fork of it. What cannot be put up ends the fork before the program: it never runs with
less than was found to work.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Mapping, Sequence

from rewards.sandbox import kernel, landlock, namespaces, seccomp
from rewards.sandbox.spec import Order


def place(files: Mapping[str, str], folder: str, *, owner: tuple[int, int] | None = None) -> None:
    """Put text files into an empty folder."""
    for name, text in files.items():
        path = os.path.join(folder, name)
        with open(path, "x", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
        if owner is not None:
            os.chown(path, *owner)


def become(order: Order, streams: Sequence[int], problem: int, *, warden: int, inside: bool) -> None:
    """Turn this process into the program; does not return. What goes wrong is written to `problem`, else it closes."""
    step = "streams"
    try:
        problem = _only(streams, problem)
        for ignored in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        step = "process group"
        os.setsid()
        os.chdir(namespaces.SCRATCH if inside else order.scratch)
        step = "limits"
        _limit(order, inside=inside)
        step = "user"
        if inside and os.geteuid() == 0:
            user, group = namespaces.program_user()
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        kernel.drop_capabilities()
        kernel.die_with(warden)
        kernel.gain_no_privileges()
        if order.landlock:
            step = "Landlock"
            scratch = namespaces.SCRATCH if inside else order.scratch
            read = [*order.readable, *(["/proc"] if inside else [])]
            landlock.restrict(read=read, write=[scratch], devices=namespaces.DEVICES, network=False)
        if order.seccomp:
            step = "seccomp"
            seccomp.install(refused(inside=inside, signals_scoped=order.signals_scoped, processes=order.processes))
        step = f"execute {order.argv[0]}"
        os.execve(order.argv[0], list(order.argv), dict(order.environment))
    except BaseException as error:
        os.write(problem, f"{step}: {error}".encode()[:4000])
    os._exit(127)


def refused(*, inside: bool, signals_scoped: bool, processes: int) -> seccomp.Refused:
    """What the filter of a program under test refuses."""
    return seccomp.Refused(
        processes=not inside or processes == 1,
        groups=not inside,
        signals=not inside and not signals_scoped,
        others=not inside,
        attributes=not inside,
    )


def lower(which: int, limit: int, *, hard_limit: int | None = None) -> None:
    """Lower a resource limit; one that is below already stays.

    Args:
        hard_limit: where it is to differ from the soft one.

    Raises:
        OSError, ValueError: the system refuses.
    """
    present = resource.getrlimit(which)[1]

    def at_most(value: int) -> int:
        return value if present == resource.RLIM_INFINITY else min(value, present)

    resource.setrlimit(which, (at_most(limit), at_most(limit if hard_limit is None else hard_limit)))


def _only(streams: Sequence[int], problem: int) -> int:
    """Close all but the three standard streams and one more, which goes when the program starts; returns its number."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    last = len(streams)
    if problem != last:
        os.dup2(problem, last, inheritable=False)
    os.closerange(last + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return last


def _limit(order: Order, *, inside: bool) -> None:
    """Resource limits, of each process."""
    megabyte = 2**20
    lower(resource.RLIMIT_AS, order.memory_mb * megabyte)
    # A second later comes the end for what takes no notice of the first signal.
    lower(resource.RLIMIT_CPU, order.cpu_s, hard_limit=order.cpu_s + 1)
    lower(resource.RLIMIT_FSIZE, order.file_mb * megabyte)
    lower(resource.RLIMIT_NOFILE, order.open_files)
    for which in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        lower(which, 0)
    if inside:
        # Counted within the namespace, where an ordinary user's warden is one of them.
        lower(resource.RLIMIT_NPROC, order.processes + (os.geteuid() != 0))
