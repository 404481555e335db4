"""`rlhf clean`: training data without what stands in evaluation sets, and without repetitions.

    data: [train.jsonl]                  # what to clean, however large
    against: [gsm8k_test.jsonl]          # what must not be trained on
    out: clean
    overlap: {n: 8, share: 0.5}          # see rlhf.data.care.overlap
    duplicates: {find: near}             # see rlhf.data.care.duplicates

The evaluation sets are held in memory, the data stream past them; where repetitions are looked for, a sketch of every
row is kept, and what repeats a row of the same or an earlier source is left out in a second pass. The result is a
folder with a JSONL file of the kept rows for every source, `removed.jsonl` (a line for every row that was left out and
why: the words that it shares, or the row that it repeats) and `report.json` (settings, counts, and the hashes of all
that was read and written). It appears whole or not at all. A run can do the same with its own prompts when it starts:
`rlhf.loops.care`.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table

from rlhf.core import config
from rlhf.core.errors import ConfigError, DataError
from rlhf.data import sources
from rlhf.data.care import duplicates, rows
from rlhf.data.care.duplicates import Duplicates, DuplicatesConfig
from rlhf.data.care.overlap import EvalText, Index, Match, OverlapConfig, screened

REPORT = "report.json"
REMOVED = "removed.jsonl"
OVERLAP, DUPLICATE = "overlap", "duplicate"
"""Why a row was left out."""


@dataclass(frozen=True, kw_only=True)
class CleanConfig:
    """A file for `rlhf clean`."""

    data: list[str] = field(default_factory=list[str])
    """Training data: .jsonl, .json or .parquet files, or Hugging Face dataset ids (split `train`)."""
    columns: list[str] = field(default_factory=list[str])
    """Columns of the data to look at; empty looks at every text in a row, answers too."""
    against: list[str] = field(default_factory=list[str])
    """Evaluation sets, named likewise (split `test`)."""
    asked: list[str] = field(default_factory=list[str])
    """Columns of the evaluation sets that hold what must not be trained on; empty: the first of question, problem,
    prompt, instruction, input, messages, text."""
    out: str = ""
    """Folder of the result; must not be there yet."""
    overlap: OverlapConfig = field(default_factory=OverlapConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)

    def __post_init__(self) -> None:
        for name in ("data", "out"):
            if not vars(self)[name]:
                raise ConfigError(name, "is required", fix=f"set {name}=…")
        if not self.against and self.duplicates.find == duplicates.NONE:
            fix = "name evaluation sets, or set duplicates.find=near"
            raise ConfigError("against", "is required, or there is nothing to look for", fix=fix)
        twice = [name for name, count in Counter(map(_target, self.data)).items() if count > 1]
        if twice:
            problem = f"two of them would be written to {twice[0]}"
            raise ConfigError("data", problem, fix="rename one, or clean them one by one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What came of one source of training data."""

    source: str
    rows: int
    kept: int
    removed: Mapping[str, int]
    """By why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How much of an evaluation set stood in the training data."""

    source: str
    texts: int
    found: int
    """Texts of which at least one row was left out; where several are as near, the first counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a call."""

    folder: Path
    data: Sequence[Cleaned]
    against: Sequence[Compared]


def read(path: Path, overrides: Sequence[str] = ()) -> CleanConfig:
    """A file for `rlhf clean`, checked.

    Raises:
        ConfigError: with the key, the valid choices and the fix.
    """
    return config.build(CleanConfig, config.load(path, overrides).tree)


def clean(cfg: CleanConfig) -> Outcome:
    """Write the folder.

    Raises:
        DataError: a source cannot be read, or the folder cannot be written. ConfigError: `out` is there already.
    """
    out = Path(cfg.out)
    if out.exists():
        raise ConfigError("out", f"{out} is there already", fix="choose another folder, or remove that one")
    texts = {source: list(eval_texts(source, cfg.asked)) for source in cfg.against}
    index = Index(cfg.overlap, (text for found in texts.values() for text in found))
    hidden = out.with_name(f".{out.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    seen: set[tuple[str, str]] = set()
    try:
        hidden.mkdir(parents=True)
        with (hidden / REMOVED).open("w", encoding="utf-8") as removed:
            repeated = _Repeated(cfg, removed)
            cleaned = [_clean(source, cfg, index, hidden, removed, seen, repeated) for source in cfg.data]
            cleaned = repeated.left_out(cleaned, hidden)
        compared = [
            Compared(source=source, texts=len(found), found=sum((source, text.name) in seen for text in found))
            for source, found in texts.items()
        ]
        _write_report(hidden, cfg, cleaned, compared)
        hidden.rename(out)
    except OSError as error:
        fix = "free disk space or mend the folder's permissions, then run the same command again"
        raise DataError(str(out), f"cannot be written: {error}", fix=fix) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return Outcome(folder=out, data=cleaned, against=compared)


def eval_texts(source: str, columns: Sequence[str], *, where: str = "against") -> Iterator[EvalText]:
    """What must not be trained on of an evaluation set.

    Args:
        columns: that hold it; empty for the usual one.
        where: config path of the source, for messages.

    Raises:
        DataError: the source, or a row of it, cannot be used.
    """
    for number, row in enumerate(sources.rows(source, split="test", where=where), start=1):
        for text in rows.asked(row, columns, where=f"{source}, row {number}"):
            yield EvalText(source=source, name=f"row {number}", text=text)


def show(cfg: CleanConfig) -> None:
    """Clean, and say what came of it."""
    found, console = clean(cfg), Console()
    table = Table("data", "rows", "kept", "left out")
    for one in found.data:
        table.add_row(one.source, str(one.rows), str(one.kept), _told(one.removed))
    console.print(table)
    table = Table("evaluation set", "texts", "found in the data", "share")
    for other in found.against:
        table.add_row(other.source, str(other.texts), str(other.found), f"{other.found / max(1, other.texts):.1%}")
    console.print(table)
    console.print(f"{found.folder}: the kept rows; {REMOVED} says what was left out and why", highlight=False)


def _clean(
    source: str,
    cfg: CleanConfig,
    index: Index,
    folder: Path,
    removed: IO[str],
    seen: set[tuple[str, str]],
    repeated: _Repeated,
) -> Cleaned:
    """Write the kept rows of a source, and note the others."""
    total, why = 0, Counter[str]()
    stream = enumerate(sources.stream(source, split="train", where="data"), start=1)

    def texts(numbered: tuple[int, sources.Row]) -> list[str]:
        return rows.said(numbered[1], cfg.columns, where=f"{source}, row {numbered[0]}")

    with (folder / _target(source)).open("w", encoding="utf-8") as kept:
        for (number, row), match in screened(stream, texts, index):
            total = number
            if match is None:
                kept.write(_line(row, f"{source}, row {number}"))
                repeated.add(source, number, "\n".join(texts((number, row))))
                continue
            why[OVERLAP] += 1
            seen.add((match.source, match.name))
            removed.write(_line(_record(source, number, match), REMOVED))
    return Cleaned(source=source, rows=total, kept=total - why.total(), removed=why)


class _Repeated:
    """Kept rows that repeat others.

    Args:
        cfg: whether, and how, they are looked for.
        removed: file that says what was left out.
    """

    def __init__(self, cfg: CleanConfig, removed: IO[str]) -> None:
        self._duplicates, self._on = Duplicates(cfg.duplicates), cfg.duplicates.find != duplicates.NONE
        self._removed = removed
        self._rows: list[tuple[str, int]] = []

    def add(self, source: str, number: int, text: str) -> None:
        """The next kept row."""
        if self._on:
            self._duplicates.add(text)
            self._rows.append((source, number))

    def left_out(self, cleaned: Sequence[Cleaned], folder: Path) -> list[Cleaned]:
        """Write the files of kept rows anew, without repetitions; the counts then."""
        found, out = self._duplicates.find(), list[Cleaned]()
        for row, first in found.items():
            (source, number), (other, earlier) = self._rows[row], self._rows[first]
            of = {"of": other, "of_row": earlier}
            self._removed.write(_line({"source": source, "row": number, "why": DUPLICATE, **of}, REMOVED))
        begin = 0
        for one in cleaned:
            gone = {row - begin for row in found if begin <= row < begin + one.kept}
            begin += one.kept
            out.append(_without(one, gone, folder) if gone else one)
        return out


def _without(one: Cleaned, gone: Collection[int], folder: Path) -> Cleaned:
    """A source without some of its kept lines, which are counted from 0."""
    path, shorter = folder / _target(one.source), folder / ".shorter"
    with path.open("rb") as lines, shorter.open("wb") as kept:
        kept.writelines(line for number, line in enumerate(lines) if number not in gone)
    shorter.rename(path)
    return replace(one, kept=one.kept - len(gone), removed={**one.removed, DUPLICATE: len(gone)})


def _record(source: str, number: int, match: Match) -> Mapping[str, Any]:
    """What `removed.jsonl` says of a row."""
    return {
        "source": source,
        "row": number,
        "why": OVERLAP,
        "against": match.source,
        "name": match.name,
        "share": round(match.share, 4),
        "words": match.words,
    }


def _write_report(folder: Path, cfg: CleanConfig, cleaned: Iterable[Cleaned], compared: Iterable[Compared]) -> None:
    data = {
        one.source: {
            "content": sources.fingerprint(one.source, where="data"),
            "rows": one.rows,
            "kept": one.kept,
            "removed": dict(one.removed),
            "written": _target(one.source),
            "written_content": sources.fingerprint(str(folder / _target(one.source)), where="out"),
        }
        for one in cleaned
    }
    against = {
        one.source: {
            "content": sources.fingerprint(one.source, where="against"),
            "texts": one.texts,
            "found": one.found,
        }
        for one in compared
    }
    report = {"settings": config.to_tree(cfg), "data": data, "against": against}
    (folder / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _target(source: str) -> str:
    """Name of the file with the kept rows of a source."""
    return f"{Path(source).stem}.jsonl"


def _line(row: Mapping[str, Any], where: str) -> str:
    try:
        return json.dumps(row, ensure_ascii=False) + "\n"
    except TypeError as error:
        fix = "convert that column to text or numbers first"
        raise DataError(where, f"holds what JSON has no form for: {error}", fix=fix) from error


def _told(removed: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in sorted(removed.items())) or "nothing"
