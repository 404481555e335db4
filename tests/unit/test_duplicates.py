"""Duplicates: what is called near is near, what is kept never depends on what was left out, and all machines agree."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

import pytest

from rlhf.core.errors import ConfigError
from rlhf.data.care.duplicates import Duplicates, DuplicatesConfig, sketch
from rlhf.data.care.words import words


def found(texts: Sequence[str], **settings: str | float) -> dict[int, int]:
    made = Duplicates(DuplicatesConfig(**{"find": "near"} | settings))  # type: ignore[arg-type]
    for text in texts:
        made.add(text)
    return made.find()


def text(rng: random.Random, count: int = 200) -> list[str]:
    return [f"w{rng.randrange(5000)}" for _ in range(count)]


def similarity(one: str, other: str, n: int = 5) -> float:
    sets = [{tuple(w[at : at + n]) for at in range(len(w) - n + 1)} for w in (words(one), words(other))]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_near_texts_are_found_and_others_are_not() -> None:
    """Of texts with some words replaced, those with a similarity above 0.88 are found and those below 0.7 are not: the
    estimate errs by 0.04."""
    rng, texts, similar = random.Random(0), list[str](), list[float]()
    for replaced in (0, 1, 2, 3, 12, 20) * 12:
        base = text(rng)
        other = [*base]
        for at in rng.sample(range(len(base)), replaced):
            other[at] = "new"
        texts += [" ".join(base), " ".join(other)]
        similar.append(similarity(*texts[-2:]))
    out = found(texts)
    assert {row: first for row, first in out.items() if row - first != 1} == {}
    assert all(2 * n + 1 in out for n, share in enumerate(similar) if share > 0.88)
    assert not any(2 * n + 1 in out for n, share in enumerate(similar) if share < 0.7)
    assert sum(share > 0.88 for share in similar) > 20 and sum(share < 0.7 for share in similar) > 20


def test_sketches_estimate_the_similarity() -> None:
    rng = random.Random(1)
    errors = list[float]()
    for replaced in range(0, 30, 2):
        base = text(rng, 300)
        other = [word if at % 10 or at >= 10 * replaced else "new" for at, word in enumerate(base)]
        one, two = " ".join(base), " ".join(other)
        agree = (sketch(words(one), 5) == sketch(words(two), 5)).mean()
        errors.append(float(agree) - similarity(one, two))
    assert max(map(abs, errors)) < 0.16 and abs(sum(errors) / len(errors)) < 0.03


def test_a_row_is_left_out_only_because_of_one_that_is_kept() -> None:
    """Each is near to its neighbours, the third not to the first: it stays, and the fourth repeats it."""
    first = text(random.Random(2))
    second = ["a"] * 22 + first[22:]
    third = second[:-22] + ["b"] * 22
    chain = [" ".join(one) for one in (first, second, third, [*third, "z"])]
    assert similarity(chain[0], chain[1]) > 0.85 < similarity(chain[1], chain[2])
    assert similarity(chain[0], chain[2]) < 0.75 and similarity(chain[2], chain[3]) > 0.95
    assert found(chain) == {1: 0, 3: 2}
    assert found([*chain, chain[1].upper()]) == {1: 0, 3: 2, 4: 0}


def test_equal_texts_are_equal_but_for_case_and_space_not_signs() -> None:
    texts = ["3+5=", "3-5=", " 3+5=\n", "What is it?", "WHAT  is it?", "What is it!", ""]
    for find in ("exact", "near"):
        assert found(texts, find=find) == {2: 0, 4: 3}
    assert found(texts, find="none") == {} == found([])
    many = " ".join(text(random.Random(3)))
    assert found([many, many + "!"], find="exact") == {} and found([many, many + "!"]) == {1: 0}


def test_every_machine_makes_the_same_sketch() -> None:
    made = sketch(words("The quick brown fox jumps over the lazy dog, naïve as ever."), 5)
    assert hashlib.sha256(made.astype("<u4").tobytes()).hexdigest()[:16] == "0b5540cfeefd34d2"


@pytest.mark.parametrize(("field", "value"), [("find", "fuzzy"), ("n", 0), ("similarity", 0.3), ("similarity", 1.2)])
def test_impossible_settings_are_refused(field: str, value: str | float) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}: .*\n  fix: "):
        DuplicatesConfig(**{field: value})  # type: ignore[arg-type]
