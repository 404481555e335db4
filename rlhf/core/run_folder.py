"""One run, one folder: who may write it, what lies where, and how its logs stay equal across restarts.

Append-only logs (`metrics.jsonl`, `samples.jsonl`, `evaluations.jsonl`, `data/*.jsonl`) are cut back to the length
that the last checkpoint recorded, so that a continued run appends what an uninterrupted one would have written. A lock
makes a second writer fail, or wait, instead of mixing two runs. A folder belongs to the config that it was started with
as soon as it holds anything that training wrote; a start that failed before that leaves nothing worth keeping, and
another config may take over.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import yaml

from rlhf.core.config import flatten
from rlhf.core.errors import RunFolderError

_MISSING = object()


class RunFolder:
    """Paths and logs of `runs/<name>`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.base_config = path / "base_config.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples.jsonl"
        self.evaluations = path / "evaluations.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.tensorboard = path / "tb"
        self.summary = path / "summary.json"
        self.report = path / "report.html"
        self.data = path / "data"
        self.removed = path / "removed"
        self._lock: IO[str] | None = None

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """The folder of a run that has been started, to be read.

        Raises:
            RunFolderError: it is none.
        """
        folder = cls(path)
        if not (folder.config.exists() and folder.environment.exists()):
            fix = "give the folder that training printed, runs/<name>"
            raise RunFolderError(str(path), "is not a run folder: it lacks config.yaml or environment.json", fix=fix)
        return folder

    def open(self, config_yaml: str, *, busy: Callable[[], None] | None = None) -> bool:
        """Take the folder for one process. Returns True when it holds this run already, False when it is new.

        Args:
            config_yaml: the resolved config; an existing folder must hold the same.
            busy: called when another process writes here, which is then waited for; None refuses instead.

        Raises:
            RunFolderError: another process writes here, the folder belongs to a run with another config or to something
                else, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a")
            self._take(self._lock, busy)
        except BlockingIOError as error:
            self.close()
            raise RunFolderError(str(self.path), "another process is writing this run", fix="wait for it") from error
        except OSError as error:
            fix = "choose another run.folder or run.name, or mend the permissions"
            raise RunFolderError(str(self.path), f"cannot be written: {error}", fix=fix) from error
        try:
            return self._is_own(config_yaml)
        except RunFolderError:
            self.close()
            raise

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def offsets(self) -> dict[str, int]:
        """Bytes in each log, to be stored with a checkpoint."""
        return {str(p.relative_to(self.path)): p.stat().st_size for p in self.logs()}

    def logs(self) -> list[Path]:
        """Every append-only file there is."""
        logs = (self.metrics, self.samples, self.evaluations, *sorted(self.data.glob("*.jsonl")))
        return [path for path in logs if path.exists()]

    def cut(self, offsets: Mapping[str, int]) -> None:
        """Cut the logs back to what a checkpoint recorded.

        Raises:
            RunFolderError: a log is shorter than the checkpoint says, or gone.
        """
        sizes = self.offsets()
        for name, size in offsets.items():
            if (have := sizes.get(name, 0)) < size:
                fix = "restore the file, or delete the run folder and start again"
                raise RunFolderError(str(self.path / name), f"has {have} bytes, its checkpoint says {size}", fix=fix)
        for name, have in sizes.items():
            if have > (size := offsets.get(name, 0)):
                os.truncate(self.path / name, size)

    def _take(self, lock: IO[str], busy: Callable[[], None] | None) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy is None:
                raise
            busy()
            fcntl.flock(lock, fcntl.LOCK_EX)

    def _is_own(self, config_yaml: str) -> bool:
        present = {p.name for p in self.path.iterdir() if not p.name.startswith(".")}
        if not self.config.exists():
            if present:
                problem = f"holds files of something else: {', '.join(sorted(present)[:3])}"
                fix = "choose another run.name; a run never overwrites a folder"
                raise RunFolderError(str(self.path), problem, fix=fix)
            return False
        if (before := self.config.read_text(encoding="utf-8")) == config_yaml:
            return True
        start = (self.config, self.base_config, self.environment, self.model, self.tensorboard, self.removed)
        if self.environment.name in present and present <= {p.name for p in start}:
            for path in (self.model, self.tensorboard, self.removed):
                _remove_whole(path)
            return False
        problem = f"holds a run with another config: {_changed(before, config_yaml)}"
        fix = "choose another run.name, or give the overrides that this run was started with"
        raise RunFolderError(str(self.path), problem, fix=fix)


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
        fix = "free disk space or mend folder and permissions, then run again"
        raise RunFolderError(str(path), f"cannot be written: {error}", fix=fix) from error


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
    # As bytes: a kill may have cut the last line inside a character.
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _remove_whole(folder: Path) -> None:
    """Delete a folder so that a kill leaves all of it or nothing under its name."""
    hidden = folder.with_name(f".old_{folder.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    if folder.exists():
        folder.rename(hidden)
        shutil.rmtree(hidden)


def _changed(before: str, after: str) -> str:
    """The keys in which two configs differ: `rl.steps is 7 there and 9 here`."""
    there, here = _flat(before), _flat(after)
    keys = [key for key in there | here if there.get(key, _MISSING) != here.get(key, _MISSING)]
    shown = [f"{key} is {there.get(key, 'not set')} there and {here.get(key, 'not set')} here" for key in keys[:5]]
    return "; ".join(shown) + (f"; and {len(keys) - 5} more" if len(keys) > 5 else "")


def _flat(text: str) -> dict[str, Any]:
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return flatten(cast("dict[str, Any]", content)) if isinstance(content, dict) else {}
