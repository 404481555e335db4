"""What an answer is worth when the model may decline to give one: right, wrong, and two kinds of refusal.

    rewards:
      refusal: {verifier: {name: math}}

    what happened                                value                      verdict            reason
    an answer, and it is right                   correct            1       that of `verifier`
    an answer, and it is not                     wrong             -1       that of `verifier`
    a refusal of what the policy does not know   honest_refusal     0       refused            refusal/unknown
    a refusal of what it never tried             honest_refusal     0       refused            refusal/untried
    a refusal of what it knows                   known_refusal     -1       refused            refusal/known
    an answer that the verifier cannot grade     None                       that of `verifier`
    the classifier failed                        None                       timeout, crash     timeout/classifier, …

The first three values are the ternary reward of TruthRL (Wei et al. 2025, arXiv 2509.25760); the last is that of its
binary reward, where a refusal counts as a miss. `known_refusal: 0` is TruthRL's own choice: within a group, GRPO then
holds a refusal against the answers beside it, above the wrong and below the right ones. `honest_refusal: 1` is close to
its knowledge-enhanced variant, which the paper found to refuse too much, and 2, 1 and -1 for right, refused and wrong
are the values of KnowRL (Ren et al. 2025, arXiv 2506.19807). An answer that is right with probability p is worth giving
from p = (refusal - wrong) / (correct - wrong) on, 1/2 with the defaults (Kalai et al. 2025, arXiv 2509.04664).

**Knowledge boundary.** A policy knows a question from `known_from: 0.1` on, as the share of right ones among the
answers that it gave when it did not refuse: one in ten samples, as in "Alignment for Honesty" (Yang et al. 2023, arXiv
2312.07000). Two measures of that share, in this order: the prompt's column `self_accuracy`, where a stage's `boundary`
put it (`rlhf.loops.boundary`: the policy is probed at the start of the stage, or again every so many steps), and else
the other samples of the same group. A reward has no state: what was measured comes to it with the prompt, so that it is
the same in every process that grades, after a resume and in a replay. `probed` is the share of samples with the former.

**Refusals** are found by `phrases` and their `place`, or by a `classifier`. A text that declines is a refusal whatever
else it holds: if a right answer counted beside the words that save a wrong one, every answer would end in them.

What the breakdown tells, by sample: `correct`, `wrong` (an answer that is not right, however it fails), `refused`,
`known` (nothing while untried), `self_accuracy`, `probed`, and `confidence`, where the text states one
(`rewards.refusal.confidence`); the evaluation loop makes its measures of honesty of them. With `weight: 0`, or with
`correct: 1` and 0 for all else, this measures and trains nobody to refuse.

How it can be hacked. Refusing pays where the boundary says "unknown", so a policy that answers badly on purpose makes
itself room to refuse; a probe from before the stage cannot be moved that way. One that refuses always is never shown
that it could answer: where refusals pay more than answers can, accuracy falls with the wrong answers. Watch coverage
and over-refusal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rewards import base
from rewards.base import WorkerError
from rewards.judged import check_weight, judge, shaped
from rewards.refusal import classifier, confidence, phrases
from rewards.refusal.classifier import Classifier
from rewards.refusal.phrases import PHRASES, PLACES
from rlhf.core.component import Component
from rlhf.core.config import slot
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Tools
from rlhf.core.outcomes import SELF_ACCURACY
from rlhf.core.types import Group, RewardOut, Verdict

__all__ = ["Classifier", "Config", "score"]

_VALUES = ("wrong", "honest_refusal", "known_refusal")


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """What the four outcomes are worth, and how they are told apart."""

    verifier: Component = slot("rewards", "math")
    """The reward that judges the answers."""
    correct: float = 1.0
    """What a right answer is worth."""
    wrong: float = -1.0
    """What an answer is worth that is not right."""
    honest_refusal: float = 0.0
    """What it is worth to refuse a question that the policy does not know."""
    known_refusal: float = -1.0
    """What it is worth to refuse a question that it knows."""
    known_from: float = 0.1
    """Share of right ones among its answers from which the policy knows a question."""
    min_answers: int = 1
    """Answers in a group that such a share needs; with fewer the question counts as untried."""
    phrases: list[str] = field(default_factory=lambda: list(PHRASES))
    """What a refusal says; `*` stands for anything. Not used with a classifier."""
    place: str = "last_line"
    """Where it says so: whole, start, last_line or anywhere."""
    classifier: Classifier = field(default_factory=Classifier)
    confidence_mark: str = "confidence:"
    """What the confidence of an answer follows, `Confidence: 80%`; empty reads none."""
    confidence_words: dict[str, float] = field(default_factory=dict[str, float])
    """Confidences by phrase, `{I am sure: 1, I am unsure: 0}`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("correct", *_VALUES):
            if not math.isfinite(value := vars(self)[name]):
                raise ConfigError(name, f"{value} is not a finite number", fix="use 1, -1, 0 and -1")
        for name in _VALUES:
            if (value := vars(self)[name]) > self.correct:
                problem = f"{value} is more than the {self.correct} that a right answer is worth"
                raise ConfigError(name, problem, fix=f"use {self.correct} or less")
        if self.known_refusal > self.honest_refusal:
            problem = f"{self.known_refusal} is more than a refusal is worth of what the policy does not know"
            raise ConfigError("known_refusal", problem, fix=f"use {self.honest_refusal} or less")
        if not 0 < self.known_from <= 1:
            raise ConfigError("known_from", f"{self.known_from} is not in (0, 1]", fix="use 0.1")
        if self.min_answers < 1:
            raise ConfigError("min_answers", f"{self.min_answers} answers say nothing", fix="use 1 or more")
        self._check_texts()
        check_weight(self.verifier)

    @property
    def costly(self) -> bool:
        return bool(self.classifier.model)

    def _check_texts(self) -> None:
        if self.place not in PLACES:
            raise ConfigError("place", f"'{self.place}' is not one of them", fix=did_you_mean(self.place, PLACES))
        if not self.classifier.model and not any(phrase.strip(" *") for phrase in self.phrases):
            raise ConfigError("phrases", "hold nothing that a refusal could say", fix="name one, or a classifier")
        if any(not phrase.strip(" *") for phrase in self.phrases):
            raise ConfigError("phrases", "hold one that every text says", fix="take it out")
        for words, value in self.confidence_words.items():
            if not words.strip() or not 0 <= value <= 1:
                problem = f"'{words}' and {value} are no phrase and its probability"
                raise ConfigError("confidence_words", problem, fix="write {I am sure: 1, I am unsure: 0}")


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Tell answers from refusals, have the answers judged, and value both.

    Raises:
        ConfigError: from the verifier, or because it gives values without judging answers; the classifier's folder or
            label is not one.
    """
    declined = _declined(group, cfg)
    judged = judge(group, cfg.verifier, tools)
    probed = _probed(group)
    share = _share(judged, declined, cfg) if probed is None else probed
    outs: list[RewardOut] = []
    for trajectory, out, said in zip(group.trajectories, judged, declined, strict=True):
        measured: dict[str, float | None] = {
            "refused": None if isinstance(said, RewardOut) else float(said),
            "known": None if share is None else float(share >= cfg.known_from),
            SELF_ACCURACY: share,
            "probed": float(probed is not None),
            "confidence": confidence.stated(trajectory.text, mark=cfg.confidence_mark, words=cfg.confidence_words),
        }
        if isinstance(said, RewardOut):
            outs.append(RewardOut(value=None, verdict=said.verdict, reason=said.reason, breakdown=measured))
        else:
            outs.append(_refusal(measured, cfg) if said else _answer(out, measured, cfg))
    return outs


def _declined(group: Group, cfg: Config) -> list[bool | RewardOut]:
    """Whether each text declines to answer, or what came of a classifier that failed."""
    if not cfg.classifier.model:
        question = base.last_user_message(group.prompt)
        return [phrases.declines(t.text, cfg.phrases, place=cfg.place, question=question) for t in group.trajectories]
    found: list[bool | RewardOut] = []
    for said in classifier.probabilities([t.text for t in group.trajectories], cfg.classifier):
        if isinstance(said, TimeoutError):
            found.append(base.timeout("classifier"))
        elif isinstance(said, WorkerError):
            found.append(base.crash(f"classifier_{said.kind}"))
        else:
            found.append(said >= cfg.classifier.threshold)
    return found


def _probed(group: Group) -> float | None:
    value = group.prompt.columns.get(SELF_ACCURACY)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _share(judged: Sequence[RewardOut], declined: Sequence[bool | RewardOut], cfg: Config) -> float | None:
    """The share of right ones among the answers of a group; None when there are too few."""
    pairs = zip(judged, declined, strict=True)
    right = [out.verdict is Verdict.CORRECT for out, said in pairs if said is False and out.value is not None]
    return sum(right) / len(right) if len(right) >= cfg.min_answers else None


def _refusal(measured: dict[str, float | None], cfg: Config) -> RewardOut:
    known = measured["known"]
    reason = "refusal/untried" if known is None else "refusal/known" if known else "refusal/unknown"
    return RewardOut(
        value=cfg.known_refusal if known else cfg.honest_refusal,
        verdict=Verdict.REFUSED,
        reason=reason,
        breakdown={"correct": 0.0, "wrong": 0.0, **measured},
    )


def _answer(out: RewardOut, measured: dict[str, float | None], cfg: Config) -> RewardOut:
    wrong = None if out.value is None else float(out.verdict is not Verdict.CORRECT)

    def worth(right: bool) -> float:
        return cfg.correct if right else cfg.wrong

    return shaped(out, cfg.verifier, worth=worth, measured={"wrong": wrong, **measured})
