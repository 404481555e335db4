"""Overlaps: what is found equals what two nested loops find, whatever texts are like; conventions by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import decontamination
import pytest

from rlhf.core.errors import ConfigError
from rlhf.data.care.overlap import EvalText, Index, OverlapConfig, screened
from rlhf.data.care.words import numbers, runs, squeezed, words


def index(*texts: str, **settings: object) -> Index:
    cfg = OverlapConfig(**settings)  # type: ignore[arg-type]
    return Index(cfg, [EvalText(source="test", name=str(n), text=text) for n, text in enumerate(texts)])


def by_loops(rows: Sequence[Sequence[str]], texts: Sequence[str], cfg: OverlapConfig) -> list[float]:
    """The largest share that each row has of a text, by the definition; 0 where none is enough."""
    split, unique = [tuple(words(text)) for text in texts], dict[tuple[bytes, ...], str]()
    for text, found in zip(texts, split, strict=True):
        unique.setdefault(found, text)
    stand: dict[tuple[bytes, ...], set[tuple[bytes, ...]]] = {}
    for found in unique:
        size = min(cfg.n, len(found))
        for at in range(len(found) - size + 1):
            stand.setdefault(found[at : at + size], set()).add(found)
    out: list[float] = []
    for row in rows:
        best, said = 0.0, [tuple(words(text)) for text in row]
        for found, text in unique.items():
            size = min(cfg.n, len(found))
            kept = [at for at in range(len(found) - size + 1) if len(stand[found[at : at + size]]) <= cfg.common]
            held = {one[at : at + size] for one in said for at in range(len(one) - size + 1)}
            evident = {at + k for at in kept for k in range(size)}
            shared = {at + k for at in kept if found[at : at + size] in held for k in range(size)}
            if len(found) < cfg.least or not evident:
                share = float(any(squeezed(text) == squeezed(other) for other in row))
            else:
                share = len(shared) / len(evident)
            best = max(best, share if share > cfg.share else 0.0)
        out.append(best)
    return out


def test_what_is_found_is_what_the_definition_says() -> None:
    rng, shares = random.Random(0), list[float]()

    def text(most: int) -> str:
        return " ".join(rng.choice("abc") for _ in range(rng.randint(1, most)))

    for _ in range(12):
        share, common = rng.choice([0, 0.3, 0.5, 0.9]), rng.choice([1, 3, 99])
        cfg = OverlapConfig(n=rng.randint(2, 5), share=share, least=2, common=common)
        texts = [text(9) for _ in range(15)]
        rows = [[text(12) for _ in range(rng.randint(1, 3))] for _ in range(50)]
        found = Index(cfg, [EvalText(source="test", name=str(n), text=one) for n, one in enumerate(texts)]).find(rows)
        expected = by_loops(rows, texts, cfg)
        assert [match.share if match else 0.0 for match in found] == pytest.approx(expected)
        shares += expected
    assert len(set(shares)) > 6 and 0.1 < sum(map(bool, shares)) / len(shares) < 0.9


QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."


def test_planted_overlaps_are_found_and_look_alikes_are_not() -> None:
    found = decontamination.proof(decontamination.corpus(questions=100, documents=200, per_kind=20), OverlapConfig())
    assert found.recall >= 0.99 and found.precision >= 0.99
    assert list(found.by_kind.values()) == ["20 of 20"] * 5 + ["0 of 20"] * 5 + ["0 of 200"]


def test_case_signs_and_line_breaks_hide_nothing_and_the_words_are_shown() -> None:
    row = f"Solve this!\n{QUESTION.upper().replace(',', ' --').replace(' ', '  ')}\nHow many?"
    [match] = index(QUESTION).find([[row]])
    assert match is not None and (match.source, match.name, match.share) == ("test", "0", 1.0)
    assert match.words == "natalia sold clips to 48 of her friends in april and then she sold half as many clips in may"


def test_runs_do_not_cross_from_one_text_or_row_to_the_next() -> None:
    first, last = " ".join(QUESTION.split()[:8]), " ".join(QUESTION.split()[8:])
    assert index(QUESTION, share=0.0, n=13, least=8).find([[first, last], [first], [last]]) == [None] * 3
    assert index(QUESTION, share=0.0, n=12, least=8).find([[first, last]])[0] is not None


def test_more_than_the_share_is_needed_and_of_one_row() -> None:
    """Ten words in runs of two; a row with five of them in runs has a share of one half."""
    text = "a b c d e f g h i j"
    half, more, elsewhere = ["a b c d e"], ["a b c", "e f g"], ["f g h i j"]
    settings = {"n": 2, "least": 2}
    found = index(text, share=0.5, **settings).find([half, more, elsewhere])
    assert [match.share if match else None for match in found] == [None, 0.6, None]
    assert all(index(text, share=0.49, **settings).find([half, more, elsewhere]))


def test_short_texts_are_looked_for_whole_and_very_short_ones_with_their_signs() -> None:
    found = index("What is the capital of Peru?", "3+5=", "5").find(
        [
            ["He asked: what is the capital of Peru"],
            ["3-5="],
            [" 3+5= "],
            ["x = 3+5="],
            ["the answer is 5"],
            ["is 5", "5"],
        ]
    )
    assert [match.name if match else None for match in found] == ["0", None, "1", None, None, "2"]


def test_runs_of_many_texts_are_no_evidence_but_equal_texts_count_once() -> None:
    frame = "Please think step by step and then write the last line as the answer"
    texts = [f"{frame}: {n} {n + 1} {n + 2} {n + 3} {n + 4} {n + 5} {n + 6} {n + 7} {n + 8}" for n in range(0, 300, 20)]
    settings = {"share": 0.0, "common": 10}
    assert index(*texts, **settings).find([[f"{frame} of your own"], [texts[3]]])[0] is None
    assert index(*texts, **settings).find([[texts[3]]])[0] is not None
    assert index(*[frame] * 15, **settings).find([[frame]])[0] is not None
    only_frames = [f"{frame} {'abcdefghijklmno'[n]}" for n in range(15)]
    found = index(*only_frames, n=2, least=2, common=1).find([[only_frames[4]], [f"{frame} z"]])
    assert found[0] is not None and found[1] is None


def test_words_of_other_scripts() -> None:
    assert words("Straße ﬁne 3½") == words("STRASSE fine 31⁄2")
    assert words("日本の首都は?") == [c.encode() for c in "日本の首都は"]
    assert words("naïve_x — 12.5") == [b"na\xc3\xafve", b"x", b"12", b"5"]
    [match] = index("日本の首都はどこですか。").find([["質問:日本の首都はどこですか"]])
    assert match is not None and match.share == 1.0


def test_runs_are_numbered_by_their_words_and_their_order() -> None:
    found = numbers(words("a b c a b c b a"))
    assert len(runs(found, 9)) == 0 and len(runs(found, 8)) == 1
    pairs = runs(found, 2).tolist()
    assert pairs[0] == pairs[3] and pairs[1] == pairs[4] and len(set(pairs)) == 5


def test_a_stream_keeps_its_order_over_batches() -> None:
    rows = [f"{'x ' * 200_000}{n}" if n % 3 else QUESTION for n in range(7)]
    out = list(screened(rows, lambda row: [row], index(QUESTION)))
    assert [row for row, _ in out] == rows
    assert [match is not None for _, match in out] == [n % 3 == 0 for n in range(7)]
    assert list(screened([], lambda row: [row], index(QUESTION))) == []


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"n": 1}, "n"), ({"share": 1.0}, "share"), ({"least": 9}, "least"), ({"common": 0}, "common")],
)
def test_impossible_settings_are_refused(settings: dict[str, float], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}: .*\n  fix: "):
        OverlapConfig(**settings)  # type: ignore[arg-type]
