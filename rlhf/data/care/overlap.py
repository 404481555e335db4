"""What training rows share with evaluation texts: an index of word n-grams, and the rows that it finds.

    share(row, text) = words of the text in some n-gram that the row holds too / words of the text in some n-gram
    found            = share > `share`

The index holds the evaluation texts, the training rows stream past it, so that memory goes with the former and not
with the latter. Numbers of n-grams only point to places: what is reported has been compared word by word, so a chance
collision neither adds nor hides an overlap.

    n: 8,  share: 0.5     Tülu 3 (Lambert et al. 2024, arXiv 2411.15124, section 3.2): a token counts if it lies in an
                          8-gram of the same training instance; open-instruct/decontamination/search.py, `score >
                          match_threshold`
    n: 8,  share: 0       open-r1 (scripts/decontaminate.py): one 8-gram is enough
    n: 13, share: 0       GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C), lm-evaluation-harness: one 13-gram

Deviations. GPT-3 forgets n-grams of more than ten training documents; we forget those of more than `common` different
evaluation texts, which are instructions and templates, and need no second pass. Tülu 3 cannot find texts of fewer than
n words; we look for all words of one with at least `least`, and for a row's text that equals a still shorter one, signs
included, so that `3+5=` is found and `5=` in the middle of something is not. GPT-3 cuts out what it found and 200
characters around it; we leave out the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from rlhf.core.errors import ConfigError
from rlhf.data.care.words import Numbers, numbers, runs, squeezed, words

T = TypeVar("T")
_BATCH = 1 << 20
"""Characters that are looked at together."""
_MOST_SLOTS = 26
"""Binary logarithm of the largest table of what can be in the index: 64 MB."""


@dataclass(frozen=True, kw_only=True)
class OverlapConfig:
    """What counts as an overlap."""

    n: int = 8
    """Words of a run that two texts share."""
    share: float = 0.5
    """A row is left out when more than this share of an evaluation text's words lies in such runs; 0: one run is
    enough."""
    least: int = 5
    """A shorter evaluation text than `n` words is looked for as a whole, down to this many; below, a row's text must
    equal it."""
    common: int = 10
    """Runs that stand in more different evaluation texts than this are no evidence: instructions, templates."""

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ConfigError("n", f"{self.n} words are no evidence", fix="use 8, or 13")
        if not 0 <= self.share < 1:
            raise ConfigError("share", f"{self.share} is not a share below 1", fix="use 0.5, or 0 for any shared run")
        if not 1 <= self.least <= self.n:
            raise ConfigError("least", f"{self.least} is not between 1 and n", fix=f"use 1 to {self.n}")
        if self.common < 1:
            raise ConfigError("common", f"{self.common} leaves no evidence", fix="use 10 or the like")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalText:
    """A text that must not be trained on."""

    source: str
    """Of which set: a file, or a task."""
    name: str
    """Which of the set: a prompt's id, or a row."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a row shares with an evaluation text."""

    source: str
    name: str
    share: float
    """1 for a text that was found whole."""
    words: str
    """The longest run that both have."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An evaluation text in the index."""

    origin: EvalText
    words: tuple[bytes, ...]


class Index:
    """The runs of evaluation texts.

    Args:
        cfg: what counts.
        texts: equal ones count once, under the name of the first.
    """

    def __init__(self, cfg: OverlapConfig, texts: Iterable[EvalText]) -> None:
        self._cfg = cfg
        self._known: list[_Known] = []
        self._whole: dict[str, int] = {}
        by_size: dict[int, list[int]] = {}
        seen: set[tuple[bytes, ...]] = set()
        for text in texts:
            found = tuple(words(text.text))
            size = min(cfg.n, len(found))
            if size < cfg.least:
                self._whole.setdefault(squeezed(text.text), self._add(text, found))
            elif found not in seen:
                seen.add(found)
                by_size.setdefault(size, []).append(self._add(text, found))
        self._tables = {size: _Table(size, self._known, members, cfg.common) for size, members in by_size.items()}
        self._evident = {text: count for table in self._tables.values() for text, count in table.evident.items()}
        for number in (n for members in by_size.values() for n in members if n not in self._evident):
            self._whole.setdefault(squeezed(self._known[number].origin.text), number)

    def __len__(self) -> int:
        """Different texts."""
        return len(self._known)

    def find(self, rows: Sequence[Sequence[str]]) -> list[Match | None]:
        """Per row, given as its texts, the evaluation text that it shares most of; None where that is not enough."""
        batch = _Batch(rows)
        covered: dict[tuple[int, int], bytearray] = {}
        for size, table in self._tables.items():
            for place, row in table.hits(batch):
                for number, at in table.places(place.key):
                    known = self._known[number].words
                    if tuple(batch.words[place.at : place.at + size]) == known[at : at + size]:
                        mask = covered.setdefault((row, number), bytearray(len(known)))
                        mask[at : at + size] = b"\1" * size
        best: list[Match | None] = [None] * len(rows)
        for row, number in self._equal(rows):
            best[row] = self._match(number, 1.0, bytearray(b"\1" * len(self._known[number].words)))
        for (row, number), mask in covered.items():
            share, before = sum(mask) / self._evident[number], best[row]
            if share > self._cfg.share and (before is None or share > before.share):
                best[row] = self._match(number, share, mask)
        return best

    def _add(self, text: EvalText, found: tuple[bytes, ...]) -> int:
        self._known.append(_Known(text, found))
        return len(self._known) - 1

    def _equal(self, rows: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
        if not self._whole:
            return
        for row, texts in enumerate(rows):
            for text in texts:
                if (number := self._whole.get(squeezed(text))) is not None and text.strip():
                    yield row, number

    def _match(self, number: int, share: float, mask: bytearray) -> Match:
        known = self._known[number]
        run = max(bytes(mask).split(b"\0"), key=len)
        start = bytes(mask).index(run)
        shown = b" ".join(known.words[start : start + len(run)]).decode()
        return Match(source=known.origin.source, name=known.origin.name, share=share, words=shown)


def screened(rows: Iterable[T], texts: Callable[[T], Sequence[str]], index: Index) -> Iterator[tuple[T, Match | None]]:
    """Every row with what it shares, in order; a batch of rows is held at a time.

    Args:
        rows: read once.
        texts: those of a row that are looked at.
        index: of what to look for.
    """
    batch, found, held = list[T](), list[Sequence[str]](), 0
    for row in rows:
        batch.append(row)
        found.append(texts(row))
        held += sum(map(len, found[-1]))
        if held >= _BATCH:
            yield from zip(batch, index.find(found), strict=True)
            batch, found, held = [], [], 0
    yield from zip(batch, index.find(found), strict=True)


class _Batch:
    """The words of some rows, one behind the other."""

    def __init__(self, rows: Sequence[Sequence[str]]) -> None:
        self.words: list[bytes] = []
        ends, owners = list[int](), list[int]()
        for row, texts in enumerate(rows):
            for text in texts:
                self.words += words(text)
                ends.append(len(self.words))
                owners.append(row)
        self.numbers_N = numbers(self.words)
        self.ends = np.array(ends, dtype=np.int64)
        self.owners = np.array(owners, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Place:
    """A run of a batch whose number is in a table: where it begins, and which number it is."""

    at: int
    key: int


class _Table:
    """Where runs of one size stand in evaluation texts."""

    def __init__(self, size: int, known: Sequence[_Known], members: Sequence[int], common: int) -> None:
        self._size = size
        found = [runs(numbers(known[number].words), size) for number in members]
        lengths = [len(one) for one in found]
        keys_R = np.concatenate(found)
        texts_R = np.repeat(np.array(members, dtype=np.int64), lengths)
        at_R = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])
        keys_R, texts_R, at_R = _uncommon(keys_R, texts_R, at_R, common)
        self._texts_R, self._at_R = texts_R, at_R
        self._keys, self._starts = np.unique(keys_R, return_index=True)
        self._starts = np.append(self._starts, len(keys_R))
        self._shift = np.uint64(64 - min(_MOST_SLOTS, max(10, (64 * len(self._keys)).bit_length())))
        self._maybe = np.zeros(1 << (64 - int(self._shift)), dtype=np.bool_)
        self._maybe[self._keys >> self._shift] = True
        masks: dict[int, bytearray] = {}
        for number, at in zip(texts_R.tolist(), at_R.tolist(), strict=True):
            masks.setdefault(number, bytearray(len(known[number].words)))[at : at + size] = b"\1" * size
        self.evident = {number: sum(mask) for number, mask in masks.items()}
        """Words of each text that lie in a run which is evidence; texts without any are left out."""

    def hits(self, batch: _Batch) -> Iterator[tuple[_Place, int]]:
        """Runs of the batch that may be in the table, each with the row that it stands in."""
        found_N = runs(batch.numbers_N, self._size)
        at_H = np.flatnonzero(self._maybe[found_N >> self._shift])
        key_H = np.searchsorted(self._keys, found_N[at_H])
        there = (key_H < len(self._keys)) & (self._keys[np.minimum(key_H, len(self._keys) - 1)] == found_N[at_H])
        at_H, key_H = at_H[there], key_H[there]
        text_H = np.searchsorted(batch.ends, at_H, side="right")
        inside = at_H + self._size <= batch.ends[text_H]
        rows_H = batch.owners[text_H]
        for at, key, row in zip(at_H[inside].tolist(), key_H[inside].tolist(), rows_H[inside].tolist(), strict=True):
            yield _Place(at, key), row

    def places(self, key: int) -> Iterator[tuple[int, int]]:
        """The texts that hold a run, and where in them it begins."""
        span = slice(int(self._starts[key]), int(self._starts[key + 1]))
        return zip(self._texts_R[span].tolist(), self._at_R[span].tolist(), strict=True)


def _uncommon(
    keys_R: Numbers, texts_R: NDArray[np.int64], at_R: NDArray[np.int64], common: int
) -> tuple[Numbers, NDArray[np.int64], NDArray[np.int64]]:
    """Sorted by run, without those that stand in too many texts."""
    order = np.lexsort((at_R, texts_R, keys_R))
    keys_R, texts_R, at_R = keys_R[order], texts_R[order], at_R[order]
    if not len(keys_R):
        return keys_R, texts_R, at_R
    new_key = np.append(True, keys_R[1:] != keys_R[:-1])
    new_text = new_key | np.append(True, texts_R[1:] != texts_R[:-1])
    group_R = np.cumsum(new_key) - 1
    texts_per_key = np.bincount(group_R, weights=new_text)
    kept = texts_per_key[group_R] <= common
    return keys_R[kept], texts_R[kept], at_R[kept]
