"""Control groups: limits on the memory and the processes of a worker and all that it starts, where they may be set.

The one limit on processes that binds root, and the one on memory that counts what is in use. Version 1 wants folders
that this user may write, which root has on many machines; version 2 also a group whose controllers may be handed down,
which a process in a group with others in it has only at the root of the tree. Source: "Control Group v1" and "Control
Group v2" of the kernel's documentation.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_NUMBERS = itertools.count()
_PREFIX = "rewards"


class Group:
    """One new group per controller, for one process and its children.

    Args:
        limits: by the names of version 2: `pids.max`, `memory.max` (bytes).
        root: where the tree is mounted.
        own: the contents of this process's `/proc/self/cgroup`.

    Raises:
        OSError: groups cannot be made here.
    """

    def __init__(self, limits: Mapping[str, int], *, root: Path = ROOT, own: str | None = None) -> None:
        lines = (Path("/proc/self/cgroup").read_text() if own is None else own).splitlines()
        paths = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
        name = f"{_PREFIX}-{os.getpid()}-{next(_NUMBERS)}"
        self._folders: list[Path] = []
        try:
            for key, limit in limits.items():
                controller = key.partition(".")[0]
                parent, file = _place(controller, key, paths, root)
                folder = parent / name
                if folder not in self._folders:
                    _sweep(parent)
                    folder.mkdir()
                    self._folders.append(folder)
                (folder / file).write_text(str(limit))
        except OSError:
            self.remove()
            raise

    def take(self, pid: int) -> None:
        """Put a process into it."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove it, when its processes are gone; what they take longer for is left to the next that is made."""
        for folder in self._folders:
            for _ in range(20):
                with contextlib.suppress(OSError):
                    folder.rmdir()
                if not folder.exists():
                    break
                time.sleep(0.002)


def _place(controller: str, key: str, paths: Mapping[str, str], root: Path) -> tuple[Path, str]:
    """The folder to make a group in, and the file of the limit."""
    for names, path in paths.items():
        if controller in names.split(","):
            parent = root / controller / path.lstrip("/")
            return (parent if parent.is_dir() else root / controller), {"memory.max": "memory.limit_in_bytes"}.get(
                key, key
            )
    parent = root / paths.get("", "/").lstrip("/")
    if controller not in (parent / "cgroup.subtree_control").read_text().split():
        (parent / "cgroup.subtree_control").write_text(f"+{controller}")
    return parent, key


def _sweep(parent: Path) -> None:
    """Remove what processes that are gone have left; a group with processes in it cannot be removed."""
    for folder in parent.glob(f"{_PREFIX}-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not Path("/proc", owner).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()
