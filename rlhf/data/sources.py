"""Dataset rows from files and from the Hugging Face hub.

Called by the loops, which hand `rows` to the tasks, and by the run's environment record (`fingerprint`). A source is
the path of a .jsonl, .json or .parquet file, or a hub dataset id. Every failure is a `DataError` with the file, the
line and the fix. Nothing that a dataset ships is executed: loading scripts are never run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf.core.errors import DataError
from rlhf.core.hub import is_hub_id

Row = dict[str, Any]

_FORMATS = ".jsonl, .json or .parquet"
_PARQUET_ROWS = 1024


def rows(source: str, *, split: str, where: str, subset: str = "") -> list[Row]:
    """Read a whole dataset.

    Args:
        source: path of a .jsonl, .json (a list of objects) or .parquet file, or a hub dataset id.
        split: split of a hub dataset; a file is one split and ignores it.
        where: config path of the source, for messages.
        subset: configuration of a hub dataset that has several; a file ignores it.

    Raises:
        DataError: a missing, broken or empty file, an unreachable or unknown hub dataset, no `datasets` package.
    """
    found = list(stream(source, split=split, where=where, subset=subset))
    if not found:
        raise DataError(f"{where} ({source})", "the dataset is empty", fix="give a source with at least one row")
    return found


def stream(source: str, *, split: str, where: str, subset: str = "") -> Iterator[Row]:
    """The same row by row: of .jsonl and .parquet files, only a few rows are in memory at a time.

    Raises:
        DataError: see `rows`, when the row in question is reached; none for an empty dataset.
    """
    path = _file(source, where)
    if path is None:
        yield from _from_hub(source, split=split, subset=subset, where=where)
    else:
        yield from _READERS[path.suffix](path)


def fingerprint(source: str, *, where: str) -> str:
    """What identifies the content of a source: `sha256:…` of a file, `hub:<id>` of a hub dataset.

    Raises:
        DataError: a missing file.
    """
    path = _file(source, where)
    if path is None:
        return f"hub:{source}"
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _file(source: str, where: str) -> Path | None:
    """The file that a source names, or None for a hub id."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix in _READERS:
            return path
        raise DataError(f"{where} ({source})", f"'{path.suffix}' is not a known format", fix=f"use {_FORMATS}")
    if path.is_dir():
        raise DataError(f"{where} ({source})", "is a folder", fix=f"name one {_FORMATS} file in it")
    if path.suffix in _READERS or not is_hub_id(source):
        raise DataError(
            f"{where} ({source})",
            f"no such file; looked in {path.absolute().parent}",
            fix="check the path, which is relative to the folder that the command runs in",
        )
    return None


def _from_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = _decoded(line, path)
            if not text.strip():
                continue
            where = f"{path}, line {number}"
            try:
                yield _object(json.loads(text), where)
            except json.JSONDecodeError as error:
                raise DataError(where, f"is not JSON: {error}", fix="write one JSON object per line") from error


def _from_json(path: Path) -> Iterable[Row]:
    try:
        content = json.loads(_decoded(path.read_bytes(), path))
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}"
        raise DataError(where, f"is not JSON: {error}", fix="one object per line needs the suffix .jsonl") from error
    if not isinstance(content, list):
        kind = type(content).__name__
        raise DataError(str(path), f"holds one {kind} instead of a list", fix="write a list of objects")
    return [_object(row, f"{path}, item {number}") for number, row in enumerate(content, start=1)]


def _from_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_PARQUET_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(str(path), f"is not readable as Parquet: {error}", fix="write the file again") from error


def _from_hub(source: str, *, split: str, subset: str, where: str) -> list[Row]:
    name = f"{where} ({source})"
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            name,
            "is no file here, and hub datasets need the `datasets` package",
            fix=f"pip install 'rlhf[datasets]', or give the path of a {_FORMATS} file",
        ) from error
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(source, subset or None, split=split)
        return [_object(row, f"{source}, row {number}") for number, row in enumerate(found, start=1)]
    except DataError:
        raise
    except Exception as error:
        # The library raises half a dozen unrelated families here: connection, file, value, runtime, HTTP client.
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            name,
            f"is no file here and cannot be loaded from the hub (subset '{subset}', split '{split}'): {detail}",
            fix=f"check id, subset, split and network, or give the path of a {_FORMATS} file",
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(str(path), f"is not UTF-8: {error}", fix="convert the file to UTF-8") from error


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(where, f"is of type {type(row).__name__}, not an object", fix='write {"column": value, …}')
    return row


_READERS: dict[str, Callable[[Path], Iterable[Row]]] = {
    ".jsonl": _from_jsonl,
    ".json": _from_json,
    ".parquet": _from_parquet,
}
