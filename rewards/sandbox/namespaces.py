"""A private root: a process sees the system's programs and libraries, a scratch folder, and nothing else.

The server (`rewards.sandbox.server`) forks a run into namespaces of its own for users, mounts, processes, network and
shared memory; `furnish` is what the first process in there does. `/tmp` is the scratch: a file system in memory of
limited size that is gone with the run. All else is read-only, and the folders of this machine that were not named do
not exist. After `namespaces(7)`, `user_namespaces(7)`, `pivot_root(2)`; the order of mounts is bubblewrap's
(https://github.com/containers/bubblewrap).

No privilege is needed where the kernel lets users make namespaces. For root, the program gets the user `nobody`, so
that a limit on its processes binds it, which it never does for root.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping

from rewards.sandbox import kernel

FLAGS = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
)
SCRATCH = "/tmp"
NOBODY = 65_534
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_OLD = "/.old"
_FILES_PER_MB = 256


def map_users(child: int) -> None:
    """Give names to the users of a child's namespace: itself, and for root also nobody. Called by the server.

    Raises:
        OSError: this user may not.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        contents = {"uid_map": f"0 0 1\n{NOBODY} {NOBODY} 1", "gid_map": f"0 {gid} 1\n{NOBODY} {NOBODY} 1"}
    else:
        contents = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}
    for name, content in contents.items():
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write(content)


def program_user() -> tuple[int, int]:
    """User and group that a program runs as, seen from inside."""
    return (NOBODY, NOBODY) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def furnish(readable: Iterable[str], links: Mapping[str, str], *, scratch_mb: int) -> None:
    """Build the root, and move into it.

    Args:
        readable: folders and files that are to exist, none of them behind a link or below another.
        links: where links lead that are to exist, too.

    Raises:
        OSError: the kernel refuses mounts.
    """
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    os.mkdir(f"/tmp{_OLD}")
    kernel.pivot_root("/tmp", f"/tmp{_OLD}")
    os.chdir("/")
    os.mkdir(SCRATCH)
    size = f"size={scratch_mb}m,nr_inodes={scratch_mb * _FILES_PER_MB},mode=700"
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, size)
    os.chown(SCRATCH, *program_user())
    for path in readable:
        _bind(path)
        kernel.make_read_only(path)
    for path, target in links.items():
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target, path)
    for path in DEVICES:
        _bind(path)
    os.mkdir("/proc")
    # Where a container masks parts of its own, none is to be had; few programs miss it.
    with contextlib.suppress(OSError):
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.detach(_OLD)
    os.rmdir(_OLD)
    kernel.mount("none", "/", flags=kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID)
    os.chdir(SCRATCH)


def _bind(path: str) -> None:
    old = _OLD + path
    if os.path.isdir(old):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    kernel.mount(old, path, flags=kernel.MS_BIND | kernel.MS_REC)
