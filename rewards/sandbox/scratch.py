"""Folders for runs that have no private root: made empty, and deleted whatever a program left in them."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Generator, Mapping

from rewards.sandbox import program


@contextlib.contextmanager
def folder(files: Mapping[str, str]) -> Generator[str]:
    """A new folder with some files, and its end."""
    path = os.path.realpath(tempfile.mkdtemp(prefix="rewards-"))
    try:
        program.place(files, path)
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):  # at a deadline the warden does it
            delete(path)


def delete(path: str) -> None:
    """Remove a folder with all that is in it, at any depth and whatever its modes; no link is followed.

    Nobody may be working in it any more. Folders are moved up before they are looked into, so that a path never gets
    longer than the system takes, and nothing here recurses.
    """
    # Nothing that a program made can have this name.
    name, count = secrets.token_hex(8), 0
    waiting = [path]
    while waiting:
        inner = waiting.pop()
        os.chmod(inner, stat.S_IRWXU)
        with os.scandir(inner) as entries:
            found = [*entries]
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            count += 1
            moved = os.path.join(path, f"{name}-{count}")
            # A folder that is moved to another parent must itself be writable.
            os.chmod(entry.path, stat.S_IRWXU)
            os.rename(entry.path, moved)
            waiting.append(moved)
        if inner != path:
            os.rmdir(inner)
    os.rmdir(path)
