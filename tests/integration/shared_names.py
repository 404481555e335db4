"""What has a name in /dev/shm: of one process, and what was left there by the dead. Others use the place meanwhile."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

PLACE = "/dev/shm/"


def named(process: str = "self") -> set[str]:
    """Names in /dev/shm that a process has mapped or open; none of one that has ended or belongs to somebody else."""
    root = Path("/proc") / process
    held: set[str] = set()
    with suppress(OSError):
        lines = (root / "maps").read_text().splitlines()
        held.update(line.partition(PLACE)[2] for line in lines if PLACE in line)
        for file in (root / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile, as the one that lists them is
                place = os.readlink(file)
                if place.startswith(PLACE):
                    held.add(place.removeprefix(PLACE))
    return {name.removesuffix(" (deleted)") for name in held}


def left_behind(before: set[str], seconds: float = 10.0) -> set[str]:
    """Names that came to /dev/shm since `before` and that no living process of ours holds.

    What somebody has just made and not mapped yet, or will take away at once, is waited for.
    """
    end = time.monotonic() + seconds
    while True:
        new = set(os.listdir(PLACE)) - before
        held = {name for process in os.listdir("/proc") if process.isdigit() for name in named(process)}
        left = {name for name in new - held if _is_ours(Path(PLACE) / name)}
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.2)


def _is_ours(file: Path) -> bool:
    try:
        return file.stat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False
