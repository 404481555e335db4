"""Proof of `rlhf clean`: planted overlaps are found, look-alikes are not, and memory does not grow with the data.

    python benchmarks/decontamination.py [--megabytes 50 1000] [--json FILE]

A synthetic corpus: questions and documents of words with Zipf's frequencies. Some documents hold an evaluation
question in one of the ways of `PLANTED`, some look like one in one of the ways of `LOOK_ALIKES`, all others are by
chance. Whether a row is left out is compared with what was put into it. Then files of the given sizes are cleaned, each
by a process of its own, whose largest resident set and times are its own, as the system counts them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rlhf.data.care.overlap import EvalText, Index, OverlapConfig, screened

RULES = {
    "n 8, share 0.5 (Tülu 3, the default)": OverlapConfig(),
    "n 8, share 0 (open-r1)": OverlapConfig(share=0.0),
    "n 13, share 0 (GPT-3)": OverlapConfig(n=13, share=0.0, least=8),
}
FRAME = "Read the following problem with care, think step by step, and write the result on the last line: "
VOCABULARY = 50_000
KINDS_EVERY = 500
"""In a large file, one document in so many holds or resembles a question."""

Words = list[str]
Change = Callable[[Words, random.Random], str]


def _inside(words: Words, rng: random.Random) -> str:
    return " ".join(words)


def _disguised(words: Words, rng: random.Random) -> str:
    """Other case, signs and line breaks."""
    return "".join(rng.choice((str.upper, str.title))(w) + rng.choice((" ", ", ", "\n", " - ", "  ")) for w in words)


def _most(words: Words, rng: random.Random) -> str:
    """The first seven tenths."""
    return " ".join(words[: -(-len(words) * 7 // 10)])


def _one_word(words: Words, rng: random.Random) -> str:
    """One word in the middle is another one."""
    return " ".join([*words[: len(words) // 2], "zzyzx", *words[len(words) // 2 + 1 :]])


def _pieces(words: Words, rng: random.Random) -> str:
    """Two halves with a remark between them."""
    return " ".join([*words[: len(words) // 2], "(as he had said the day before)", *words[len(words) // 2 :]])


def _shuffled(words: Words, rng: random.Random) -> str:
    return " ".join(rng.sample(words, len(words)))


def _third(words: Words, rng: random.Random) -> str:
    return " ".join(words[: len(words) // 3])


def _phrases(words: Words, rng: random.Random) -> str:
    """All of its words in order, a run of seven at a time."""
    return " and so on then ".join(" ".join(words[i : i + 7]) for i in range(0, len(words), 7))


def _reworded(words: Words, rng: random.Random) -> str:
    """Every fifth word is another one, as where a template gets other numbers."""
    return " ".join(f"q{rng.randrange(1000)}" if i % 5 == 4 else word for i, word in enumerate(words))


def _framed(words: Words, rng: random.Random) -> str:
    """The frame of all questions around something else."""
    return FRAME + " ".join(f"x{rng.randrange(10_000)}" for _ in words)


PLANTED: dict[str, Change] = {
    "verbatim": _inside,
    "other case and signs": _disguised,
    "seven tenths of it": _most,
    "one word replaced": _one_word,
    "in two pieces": _pieces,
}
LOOK_ALIKES: dict[str, Change] = {
    "its words shuffled": _shuffled,
    "a third of it": _third,
    "runs of seven words": _phrases,
    "every fifth word replaced": _reworded,
    "the frame of all questions": _framed,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Questions, and documents of which it is known what they are."""

    questions: list[EvalText]
    documents: Sequence[tuple[str, str]]
    """(kind, text); the kind is empty for chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How one rule did on a corpus."""

    recall: float
    precision: float
    by_kind: dict[str, str]
    """Left out, of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What cleaning one file took."""

    megabytes: float
    rows: int
    left_out: int
    planted: int
    peak_megabytes: float
    cpu_seconds: float
    seconds: float


class Language:
    """Words with Zipf's frequencies."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self._vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(VOCABULARY)]
        weights = 1 / (np.arange(VOCABULARY) + 5.0)
        self._limits = np.cumsum(weights / weights.sum())
        self._rng = np.random.default_rng(seed)

    def words(self, count: int) -> Words:
        places = np.searchsorted(self._limits, self._rng.random(count)).tolist()
        return [self._vocabulary[place] for place in places]


def corpus(*, questions: int, documents: int, per_kind: int, seed: int = 0) -> Corpus:
    """A corpus with `per_kind` documents of each kind among others."""
    language, rng = Language(seed), random.Random(seed)
    asked = [language.words(rng.randint(24, 70)) for _ in range(questions)]
    texts = [EvalText(source="test", name=str(n), text=FRAME + " ".join(one)) for n, one in enumerate(asked)]
    made = [("", " ".join(language.words(rng.randint(50, 300)))) for _ in range(documents)]
    for kind, change in {**PLANTED, **LOOK_ALIKES}.items():
        for _ in range(per_kind):
            around = [" ".join(language.words(rng.randint(0, 200))) for _ in range(2)]
            made.append((kind, f"{around[0]}\n{change(rng.choice(asked), rng)}\n{around[1]}"))
    rng.shuffle(made)
    return Corpus(questions=texts, documents=made)


def proof(made: Corpus, cfg: OverlapConfig) -> Found:
    """How often a rule is right about the rows of a corpus."""
    all_of, out_of = Counter[str](), Counter[str]()
    for (kind, _), match in screened(made.documents, lambda row: [row[1]], Index(cfg, made.questions)):
        all_of[kind] += 1
        out_of[kind] += match is not None
    right = sum(out_of[kind] for kind in PLANTED)
    return Found(
        recall=right / sum(all_of[kind] for kind in PLANTED),
        precision=right / max(1, out_of.total()),
        by_kind={kind or "by chance": f"{out_of[kind]} of {all_of[kind]}" for kind in (*PLANTED, *LOOK_ALIKES, "")},
    )


def cost(megabytes: int, folder: Path, *, seed: int = 0) -> Cost:
    """Clean a file of a size."""
    # Another stream of words than the corpus draws from, so that documents do not repeat its questions.
    language, rng = Language(seed + 1), random.Random(seed)
    small = corpus(questions=2000, documents=0, per_kind=200, seed=seed)
    test, data = folder / "test.jsonl", folder / "data.jsonl"
    test.write_text("".join(json.dumps({"question": text.text}) + "\n" for text in small.questions), encoding="utf-8")
    planted = 0
    with data.open("w", encoding="utf-8") as file:
        for kind, text in _documents(megabytes * 10**6, language, rng, small):
            planted += kind in PLANTED
            file.write(json.dumps({"text": text, "n": 1}) + "\n")
    words = ["clean", str(Path(__file__).parents[1] / "configs" / "care" / "tulu3.yaml")]
    words += [f"data=[{data}]", f"against=[{test}]", f"out={folder / 'out'}"]
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "rlhf.cli", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    assert status == 0, "the command failed"
    [counts] = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))["data"].values()
    return Cost(
        megabytes=round(data.stat().st_size / 1e6, 1),
        rows=counts["rows"],
        left_out=counts["rows"] - counts["kept"],
        planted=planted,
        peak_megabytes=round(used.ru_maxrss * 1024 / 1e6, 1),
        cpu_seconds=round(used.ru_utime + used.ru_stime, 1),
        seconds=round(seconds, 1),
    )


def _documents(size: int, language: Language, rng: random.Random, small: Corpus) -> Iterator[tuple[str, str]]:
    """Documents of so many characters in all."""
    written, number = 0, 0
    while written < size:
        number += 1
        kind, text = rng.choice(small.documents) if number % KINDS_EVERY == 0 else ("", " ".join(language.words(400)))
        written += len(text)
        yield kind, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="*", default=[50, 1000])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    made = corpus(questions=3000, documents=20_000, per_kind=1000)
    found = {name: proof(made, cfg) for name, cfg in RULES.items()}
    for name, one in found.items():
        print(f"\n{name}: recall {one.recall:.4f}, precision {one.precision:.4f}")
        for kind, counts in one.by_kind.items():
            print(f"  {kind:28}{counts} left out")
    costs = list[Cost]()
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            costs.append(cost(megabytes, Path(folder)))
        print(f"\n{costs[-1]}", flush=True)
    if arguments.json:
        figures = {"rules": {name: asdict(one) for name, one in found.items()}, "cost": [asdict(c) for c in costs]}
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
