"""Checkpoints that are whole or not there at all.

A checkpoint is written into a hidden folder, its files are hashed and flushed to disk, and one rename makes it appear
as `step_N`; one rename makes it vanish before its files are deleted. A crash at any moment leaves the earlier ones
untouched and at most hidden leftovers, which the next write removes. Only JSON and safetensors are ever read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rlhf.core.errors import CheckpointError

_MANIFEST = "manifest.json"
_STATE = "state.json"
_NAME = re.compile(r"step_(\d+)")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint: its folder, its step, and the state that was stored with it."""

    folder: Path
    step: int
    state: dict[str, Any]


@contextmanager
def writing(root: Path, step: int, *, state: dict[str, Any]) -> Iterator[Path]:
    """Write `root/step_N`, whole or not at all: the body fills the folder it is given.

    Args:
        root: folder of a run's checkpoints.
        state: JSON content; where the run stands.

    Raises:
        CheckpointError: the disk is full or refuses; earlier checkpoints are untouched.
    """
    final, hidden = root / f"step_{step}", root / f".writing_step_{step}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for leftover in (*root.glob(".writing_*"), *root.glob(".dropped_*")):
            shutil.rmtree(leftover)
        hidden.mkdir()
        yield hidden
        _appear(hidden, final, state)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(hidden, ignore_errors=True)
        kept = ", ".join(f"step_{n}" for n in steps(root)) or "none"
        fix = f"free disk space or fix the folder's permissions, then run the same command again (kept: {kept})"
        raise CheckpointError(str(final), f"could not be written: {error}", fix=fix) from error


def _appear(hidden: Path, final: Path, state: dict[str, Any]) -> None:
    """Hash and flush every file, then rename: the moment at which the checkpoint exists."""
    (hidden / _STATE).write_text(json.dumps(state, indent=1))
    files = sorted(p for p in hidden.rglob("*") if p.is_file())
    manifest = {str(p.relative_to(hidden)): _fingerprint(p) for p in files}
    (hidden / _MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in [*files, hidden / _MANIFEST, *sorted({p.parent for p in files} - {hidden}), hidden]:
        _flush(path)
    if final.exists():
        shutil.rmtree(final)
    os.rename(hidden, final)
    _flush(final.parent)


def steps(root: Path) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    if not root.is_dir():
        return []
    found = (_NAME.fullmatch(p.name) for p in root.iterdir() if (p / _MANIFEST).is_file())
    return sorted(int(m.group(1)) for m in found if m)


def read(root: Path, step: int) -> Checkpoint:
    """Open a checkpoint after checking every file against its hash.

    Raises:
        CheckpointError: a file is missing or damaged; says which, and which checkpoint is left.
    """
    folder = root / f"step_{step}"
    others = [n for n in steps(root) if n < step]
    fix = f"delete {folder} to continue from step_{others[-1]}" if others else f"delete {root.parent} and start again"
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        for name, expected in manifest.items():
            if _fingerprint(folder / name) != expected:
                raise CheckpointError(str(folder / name), "does not match the hash taken when it was written", fix=fix)
        return Checkpoint(folder, step, json.loads((folder / _STATE).read_text()))
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(str(folder), f"cannot be read: {error}", fix=fix) from error


def prune(root: Path, *, keep: int, protect: Collection[int]) -> None:
    """Delete all but the newest `keep` checkpoints and the protected steps."""
    present = steps(root)
    for step in present[:-keep] if keep else []:
        if step not in protect:
            hidden = root / f".dropped_step_{step}"
            os.rename(root / f"step_{step}", hidden)
            shutil.rmtree(hidden)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
