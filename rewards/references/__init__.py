"""How near an answer comes to reference texts: the same as one of them, a choice with a score, or ROUGE-L.

    verify("The Sea.", '{"references": ["sea", "the sea"]}').value                     # 1.0
    verify("often", '{"scores": {"often": 0.5, "always": 1, "never": 0}}').value       # 0.5

The gold of a prompt is JSON with `references`, texts of which any will do, or `scores`, what each choice is worth. Two
measures:

    exact      1 if the answer is one of the references; the score of the choice that it is. Compared in lower case,
               without punctuation and with single spaces (`exact: true` compares the texts as they are)
    rouge_l    the greatest F score of ROUGE-L with a reference, or with a choice times its score

Sources: exact_str_match and multiple_choice_grade of BIG-bench (Srivastava et al. 2022, arXiv 2206.04615), where the
choice is the most probable one and here it is what the answer says; ROUGE-L with the best of several references and the
normalisation of exact matches of Natural Instructions (Wang et al. 2022, arXiv 2204.07705, `eval/automatic`).

    what happened                                     value             verdict       reason
    value of at least `correct_from` of what is best  the measure       correct       references/<measure>
    less                                              the measure       wrong         mismatch
    nothing to read                                   0.0               no_answer     no_answer
    more than `max_words`, longer than `max_chars`    0.0               unparsable    limit/words, limit/chars
    the gold has neither references nor scores        None              unparsable    unparsed/gold

The answer is the text behind the last `</think>`, or with a `marker` what stands behind its last occurrence.

How it can be hacked: ROUGE-L is earned by words, not by meaning; a list of words of likely references scores.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from rewards import base
from rewards.references import rouge
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict

MEASURES = ("exact", "rouge_l")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """How answers are compared."""

    measure: str = "exact"
    """exact, or rouge_l."""
    exact: bool = False
    """Compare texts as they are, but for space around them."""
    marker: str = ""
    """What the answer stands behind, `####` for example; empty for the whole text."""
    correct_from: float = 1.0
    """The share of the best possible value from which on an answer is correct."""
    max_words: int = 500
    """Answers of more words are worth 0."""
    max_chars: int = 20_000
    """Longer answers are worth 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure not in MEASURES:
            fix = did_you_mean(self.measure, MEASURES)
            raise ConfigError("measure", f"'{self.measure}' is not one of the choices", fix=fix)
        if not 0 < self.correct_from <= 1:
            raise ConfigError("correct_from", f"{self.correct_from} is not in (0, 1]", fix="use 1, or 0.5")
        for name, usual in (("max_words", 500), ("max_chars", 20_000)):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} leaves no answer", fix=f"use {usual}")


_DEFAULT = Config()


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Grade every answer of a group."""
    return [verify(trajectory.text, group.prompt.gold, cfg=cfg) for trajectory in group.trajectories]


def verify(completion: str, gold: str, *, cfg: Config | None = None) -> RewardOut:
    """Grade one completion.

    Args:
        completion: the model's text, up to the end of its sequence.
        gold: JSON text with `references` or `scores`.
        cfg: how to compare; None for the defaults.
    """
    cfg = cfg or _DEFAULT
    wanted = read_gold(gold)
    if wanted is None:
        return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="unparsed/gold")
    text = completion.rpartition("</think>")[2]
    if cfg.marker:
        _, found, text = text.rpartition(cfg.marker)
        text = text if found else ""
    text = text.strip()
    if not text:
        return RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason="no_answer")
    if len(text) > cfg.max_chars:
        return RewardOut(value=0.0, verdict=Verdict.UNPARSABLE, reason="limit/chars")
    said = rouge.words(text) if cfg.measure == "rouge_l" else text.split()
    if len(said) > cfg.max_words:
        return RewardOut(value=0.0, verdict=Verdict.UNPARSABLE, reason="limit/words")
    value = _rouge(said, wanted) if cfg.measure == "rouge_l" else _exact(text, wanted, cfg)
    right = value >= cfg.correct_from * max(wanted.values()) - 1e-12
    return RewardOut(
        value=value,
        verdict=Verdict.CORRECT if right else Verdict.WRONG,
        reason=f"references/{cfg.measure}" if right else "mismatch",
        extracted=text,
    )


@lru_cache(maxsize=2**14)
def read_gold(gold: str) -> Mapping[str, float] | None:
    """What each acceptable text is worth; None where the gold does not say, or where nothing is worth anything."""
    try:
        found: object = json.loads(gold)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, Mapping):
        return None
    record = cast("Mapping[str, object]", found)
    references, scores = record.get("references"), record.get("scores")
    if (
        isinstance(references, list)
        and references
        and all(isinstance(r, str) for r in cast("list[object]", references))
    ):
        return dict.fromkeys(cast("list[str]", references), 1.0)
    if not isinstance(scores, Mapping):
        return None
    given = cast("Mapping[str, object]", scores)
    if not all(isinstance(s, int | float) and math.isfinite(s) and s >= 0 for s in given.values()):
        return None
    worth = {choice: float(cast(float, s)) for choice, s in given.items()}
    return worth if worth and max(worth.values()) > 0 else None


def normalised(text: str) -> str:
    """In lower case, without punctuation, with single spaces."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def _exact(text: str, wanted: Mapping[str, float], cfg: Config) -> float:
    def form(value: str) -> str:
        return value.strip() if cfg.exact else normalised(value) or value.strip()

    said = form(text)
    return max((worth for choice, worth in wanted.items() if form(choice) == said), default=0.0)


def _rouge(said: Sequence[str], wanted: Mapping[str, float]) -> float:
    return max(worth * rouge.rouge_l(said, rouge.words(choice)) for choice, worth in wanted.items())
