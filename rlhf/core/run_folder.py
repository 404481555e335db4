"""One run, one folder: who may write it, what lies where, and how its logs stay equal across restarts.

Append-only logs (`metrics.jsonl`, `samples.jsonl`, `data/*.jsonl`) are cut back to the length that the last checkpoint
recorded, so that a continued run appends what an uninterrupted one would have written. A lock makes a second writer
fail instead of mixing two runs.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from rlhf.core.errors import RunFolderError


class RunFolder:
    """Paths and logs of `runs/<name>`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.base_config = path / "base_config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.tensorboard = path / "tb"
        self.summary = path / "summary.json"
        self.report = path / "report.html"
        self.data = path / "data"
        self._lock: IO[str] | None = None

    def open(self, config_yaml: str) -> bool:
        """Take the folder for one process. Returns True when it holds this run already, False when it is new.

        Args:
            config_yaml: the resolved config; an existing folder must hold the same.

        Raises:
            RunFolderError: another process writes here, or the folder belongs to a run with another config.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(str(self.path), "another process is writing this run", fix="wait for it") from error
        if not self.config.exists():
            strangers = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if strangers:
                fix = "choose another run.name; a run never overwrites a folder"
                raise RunFolderError(str(self.path), f"holds files of something else: {strangers[:3]}", fix=fix)
            return False
        if (before := self.config.read_text()) != config_yaml:
            changed = _changed_lines(before, config_yaml)
            fix = "choose another run.name, or give the overrides that this run was started with"
            raise RunFolderError(str(self.path), f"holds a run with another config ({changed})", fix=fix)
        return True

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def offsets(self) -> dict[str, int]:
        """Bytes in each log, to be stored with a checkpoint."""
        return {str(p.relative_to(self.path)): p.stat().st_size for p in self._logs()}

    def cut(self, offsets: Mapping[str, int]) -> None:
        """Cut the logs back to what a checkpoint recorded.

        Raises:
            RunFolderError: a log is shorter than the checkpoint says.
        """
        for path in self._logs():
            size, have = offsets.get(str(path.relative_to(self.path)), 0), path.stat().st_size
            if have < size:
                fix = "restore the file, or delete the run folder and start again"
                raise RunFolderError(str(path), f"has {have} bytes, its checkpoint says {size}", fix=fix)
            if have > size:
                os.truncate(path, size)

    def _logs(self) -> list[Path]:
        """Every append-only file there is."""
        return [p for p in (self.metrics, self.samples, *sorted(self.data.glob("*.jsonl"))) if p.exists()]


def write_whole(path: Path, text: str) -> None:
    """Replace a small file in one step: readers see the old content or the new, never a part.

    Raises:
        RunFolderError: the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise RunFolderError(str(path), f"cannot be written: {error}", fix="free disk space, then run again") from error


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON objects, one a line.

    Raises:
        RunFolderError: the disk refuses; the log is cut back to whole lines at the next start.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RunFolderError(str(path), f"cannot be written: {error}", fix="free disk space, then run again") from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a log; a last line that a kill cut short is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def _changed_lines(before: str, after: str) -> str:
    gone = [line.strip() for line in before.splitlines() if line not in after.splitlines()]
    new = [line.strip() for line in after.splitlines() if line not in before.splitlines()]
    return f"there: {', '.join(gone[:3]) or 'fewer keys'}; now: {', '.join(new[:3]) or 'fewer keys'}"
