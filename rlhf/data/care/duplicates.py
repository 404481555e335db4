"""Rows that say what an earlier row has said: word for word, or nearly.

    similarity(A, B) = |A and B| / |A or B|     of the sets of a text's runs of `n` words (Jaccard)
    sketch_k(A)      = min over runs r of A of ((a_k r + b_k) mod 2^64) / 2^32      k = 1 … 150
    near             = share of k with sketch_k(A) = sketch_k(B) >= `similarity`

The chance that two sketches agree in one place is the similarity of the texts, so that the share of places estimates
it, with a standard error of at most 0.04. Texts are compared where all six places of one of 25 bands agree: of pairs
with a similarity of 0.8, 0.05 % are missed (1 - 0.8^6 to the 25th power), of pairs with 0.7, 4 %. A row is left out if
it is near to an earlier row that was kept, never because of one that was left out itself.
Memory: about 800 bytes a row.

Everything is equal in every process and on every machine: a run that goes on must see the rows that it began with.

Source: Broder 1997, "On the resemblance and containment of documents"; bands as in Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", section 3.4. Runs of five words are those of datatrove (`dedup/minhash.py`), whose 14
bands of 8 remove every candidate, whole chains of them, without a second look; Lee et al. 2022 (arXiv 2107.06499) use
5-grams and 0.8, too. Texts shorter than `n` words are near only if they are equal, signs included.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.data.care.words import Numbers, runs, squeezed, words

NONE, EXACT, NEAR = "none", "exact", "near"
BANDS, PLACES = 25, 6
_CHUNK = 4096
"""Runs that are sketched together."""

Sketch = NDArray[np.uint32]
"""[BANDS * PLACES]"""


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """Which rows count as repeated."""

    find: str = NONE
    """none; exact: the same text but for case and white space; near: also texts that share most of their words."""
    n: int = 5
    """Words of the runs that texts are compared by, with `near`."""
    similarity: float = 0.8
    """Share of their runs that near texts have in common."""

    def __post_init__(self) -> None:
        if self.find not in (NONE, EXACT, NEAR):
            fix = did_you_mean(self.find, (NONE, EXACT, NEAR))
            raise ConfigError("find", f"'{self.find}' is not one of the choices", fix=fix)
        if self.n < 1:
            raise ConfigError("n", f"{self.n} words are nothing to compare", fix="use 5")
        if not 0.5 <= self.similarity <= 1:
            problem = f"{self.similarity} is not between 0.5 and 1: below, most pairs would not be looked at"
            raise ConfigError("similarity", problem, fix="use 0.8")


class Duplicates:
    """Collects rows, then says which repeat earlier ones.

    Args:
        cfg: what counts; with `none` nothing does.
    """

    def __init__(self, cfg: DuplicatesConfig) -> None:
        self._cfg = cfg
        self._seen: dict[bytes, int] = {}
        self._equal: dict[int, int] = {}
        self._sketches: list[Sketch] = []
        self._sketched: list[int] = []
        self._count = 0

    def add(self, text: str) -> None:
        """The next row."""
        row, self._count = self._count, self._count + 1
        if self._cfg.find == NONE:
            return
        first = self._seen.setdefault(hashlib.sha256(squeezed(text).encode("utf-8", "replace")).digest()[:16], row)
        if first != row:
            self._equal[row] = first
        elif self._cfg.find == NEAR and len(found := words(text)) >= self._cfg.n:
            self._sketches.append(sketch(found, self._cfg.n))
            self._sketched.append(row)

    def find(self) -> dict[int, int]:
        """Rows that repeat an earlier one, counted from 0, with that row, which is kept itself."""
        near = {self._sketched[one]: self._sketched[other] for one, other in self._near()}
        # What equals a row that turned out to be near to a third one repeats that one too.
        equal = {row: near.get(first, first) for row, first in self._equal.items()}
        return dict(sorted((near | equal).items()))

    def _near(self) -> Iterator[tuple[int, int]]:
        """Places in the list of sketches, each with an earlier one that is kept."""
        if not self._sketches:
            return
        sketches_SK = np.stack(self._sketches)
        buckets = list(_buckets(sketches_SK))
        member: dict[int, list[int]] = {}
        for number, rows in enumerate(buckets):
            for row in rows:
                member.setdefault(row, []).append(number)
        kept: list[list[int]] = [[] for _ in buckets]
        for row in sorted(member):
            others = sorted({other for number in member[row] for other in kept[number]})
            shares = (sketches_SK[others] == sketches_SK[row]).mean(axis=1) if others else np.empty(0)
            close = np.flatnonzero(shares >= self._cfg.similarity)
            if len(close):
                yield row, others[int(close[0])]
                continue
            for number in member[row]:
                kept[number].append(row)


def sketch(found: Sequence[bytes], n: int) -> Sketch:
    """The sketch of a text with at least `n` words."""
    runs_R, (factors_K, summands_K) = runs(_stable(found), n), _family()
    smallest = np.full(BANDS * PLACES, np.iinfo(np.uint32).max, dtype=np.uint32)
    for start in range(0, len(runs_R), _CHUNK):
        hashed_RK = runs_R[start : start + _CHUNK, None] * factors_K + summands_K
        smallest = np.minimum(smallest, (hashed_RK >> np.uint64(32)).astype(np.uint32).min(axis=0))
    return smallest


def _stable(found: Iterable[bytes]) -> Numbers:
    """[N] One number per word, the same in every process."""
    return np.fromiter(map(zlib.crc32, found), dtype=np.uint64)


def _buckets(sketches_SK: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Places of sketches that agree in a whole band, two at least."""
    for band in range(BANDS):
        part = np.ascontiguousarray(sketches_SK[:, band * PLACES : (band + 1) * PLACES])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * PLACES))).ravel()
        _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(counts[group] > 1)
        by_group = shared[np.argsort(group[shared], kind="stable")]
        cuts = np.flatnonzero(np.diff(group[by_group])) + 1
        yield from (rows.tolist() for rows in np.split(by_group, cuts) if len(rows))


@cache
def _family() -> tuple[Numbers, Numbers]:
    """The factors, which are odd, and the summands of the sketches."""
    rng, count = random.Random("sketches"), BANDS * PLACES
    factors, summands = ([rng.getrandbits(64) | odd for _ in range(count)] for odd in (1, 0))
    return np.array(factors, dtype=np.uint64), np.array(summands, dtype=np.uint64)
