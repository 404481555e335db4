"""Whether a procedure was followed: every state on the way, in order, and the last one.

    rewards:
      procedure: {prefix: 0.5}                      # the gold is a label of ProcBench
      procedure: {column: steps, prefix: 0.5}       # the gold is the last state, a column has those before it

The measures of ProcBench (Fujisawa et al. 2024, arXiv 2410.03117; their `evaluator.py`). With g the gold states and p
the predicted ones, those on the way and then the last:

    PML   prefix match length: states from the front that are right
    PA    PML / max(|g|, |p|): prefix accuracy
    SM    1 if PA is 1: the whole sequence is right
    FM    1 if the last states match

    value = final * FM + prefix * PA;    the verdict is that of FM, or with `correct: sequence` that of SM

A label is JSON: `{"init": …, "intermediate": [...], "final": …}`; states are texts, integers, or lists of these. A text
is compared as it is, an integer by value, a list entry by entry as text. Where theirs never matches an empty list, here
it matches an empty list.

An answer is read in one of two forms. If it ends with `}` (or a fence behind it), it is a JSON object with the label's
`intermediate` and `final`, from its first brace on. Else it is one state per line, blank lines left out, and last
`#### ` with the last state; the entries of a list stand between commas, and an empty state is written `(empty)`. What
stands before the last `</think>` is not looked at. JSON is parsed as data and bounded; nothing is evaluated.

    what happened                                           value    verdict            reason
    the last state is right                                 above    correct            procedure/right
    it is not (or, `correct: sequence`, not all are)        above    wrong              procedure/wrong
    no `####`, or text behind its line                      0.0      no_answer          no_answer
    the JSON is none, or has no `final`                     0.0      unparsable         unparsed/prediction
    longer than `max_chars`, more than `max_states`         0.0      unparsable         limit/chars, limit/states
    the gold is no label                                    None     unparsable         unparsed/gold

In the breakdown: the four measures, and `first_error`, the first wrong state counted from 0 or -1, by which the builder
`step_labels` can check its own labels. With `dense: true` (lines only) the part of PA is placed on tokens, for
advantages that look at them: `prefix / |g|` where each right state ends, and where one too many ends what it takes from
it.

How it can be hacked: states may be invented once the prefix has broken, at no cost but that of |p|; with `prefix` above
`final`, being right on the way is worth more than arriving.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, cast

from rewards import base
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Tools
from rlhf.core.outcomes import FIRST_ERROR, NO_ERROR
from rlhf.core.types import Group, Prompt, RewardOut, Trajectory, Verdict

State: TypeAlias = "str | int | Sequence[object]"

MARK = "####"
EMPTY = "(empty)"
"""How a state without characters or entries is written on a line."""
RIGHT, WRONG = "procedure/right", "procedure/wrong"
_CORRECT = ("final", "sequence")
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """What the two measures are worth, and where the gold states are."""

    final: float = 1.0
    """What the right last state is worth."""
    prefix: float = 0.5
    """What a prefix accuracy of 1 is worth."""
    correct: str = "final"
    """Which answers are correct: those whose last state is right (`final`), or all of whose states are (`sequence`)."""
    column: str = ""
    """Column of the dataset row with the states on the way, where the gold is the last one; empty for a label."""
    dense: bool = False
    """Place the part of prefix accuracy where each state ends."""
    max_chars: int = 50_000
    """Longer answers are worth 0."""
    max_states: int = 1000
    """Answers with more states are worth 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("final", "prefix"):
            if not 0 <= vars(self)[name] < math.inf:
                raise ConfigError(name, f"{vars(self)[name]} is not a worth", fix="use 1.0 for final, 0.5 for prefix")
        if not self.final + self.prefix:
            raise ConfigError("final", "is 0 like prefix, so that nothing is worth anything", fix="use 1.0")
        if self.correct not in _CORRECT:
            fix = did_you_mean(self.correct, _CORRECT)
            raise ConfigError("correct", f"'{self.correct}' is not one of the choices", fix=fix)
        for name in ("max_chars", "max_states"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} leaves no answer", fix="use 1 or more")

    @property
    def places(self) -> bool:
        return self.dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The gold states. Example: `Label(states=("bca", "abc"))`, of which the last is the final one."""

    states: tuple[State, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """The measures of one answer."""

    pml: int
    pa: float
    sm: bool
    fm: bool

    @property
    def parts(self) -> dict[str, float | None]:
        return {"pml": float(self.pml), "pa": self.pa, "sm": float(self.sm), "fm": float(self.fm)}

    @property
    def first_error(self) -> int:
        """The first wrong state, counted from 0, or `NO_ERROR`."""
        return NO_ERROR if self.sm else self.pml


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The predicted states, the last one included, or why there are none."""

    states: tuple[object, ...] = ()
    ends: tuple[int, ...] = ()
    """Characters of the text up to the end of each state; empty for JSON."""
    problem: str = ""


_DEFAULT = Config()
_NOTHING = Measures(pml=0, pa=0.0, sm=False, fm=False)


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Grade every answer of a group.

    Raises:
        ConfigError: `column` is not there.
    """
    label = _label(group.prompt, cfg)
    return [_out(t, label, cfg) for t in group.trajectories]


def verify(completion: str, label: str | Label, *, cfg: Config | None = None) -> RewardOut:
    """Grade one completion.

    Args:
        completion: the model's text, up to the end of its sequence.
        label: the gold states, or the JSON text of a label.
        cfg: what is worth what; None for the defaults.
    """
    found = read_label(label) if isinstance(label, str) else label
    return _out(base.answered(_NOBODY, completion).trajectories[0], found, cfg or _DEFAULT)


@lru_cache(maxsize=2**14)
def read_label(text: str) -> Label | None:
    """The label in a JSON text; None where it is none."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, Mapping):
        return None
    record = cast("Mapping[str, object]", found)
    between = record.get("intermediate")
    if "final" not in record or not isinstance(between, list):
        return None
    states = (*cast("list[object]", between), record["final"])
    return Label(states=cast("tuple[State, ...]", states)) if all(map(_is_state, states)) else None


def read(text: str, cfg: Config) -> Answer:
    """The states of an answer."""
    start = text.rfind("</think>") + len("</think>") if "</think>" in text else 0
    body = text[start:].rstrip()
    if len(body) > cfg.max_chars:
        return Answer(problem="limit/chars")
    unfenced = body.removesuffix("```").rstrip()
    answer = _json(unfenced) if unfenced.endswith("}") and "{" in unfenced else _lines(text[: start + len(body)], start)
    return Answer(problem="limit/states") if len(answer.states) > cfg.max_states else answer


def measure(gold: Sequence[State], predicted: Sequence[object]) -> Measures:
    """The four measures; both sequences end with the last state and are not empty."""
    pml = next((n for n, (g, p) in enumerate(zip(gold, predicted, strict=False)) if not same(g, p)), None)
    pml = min(len(gold), len(predicted)) if pml is None else pml
    longest = max(len(gold), len(predicted))
    return Measures(pml=pml, pa=pml / longest, sm=pml == longest, fm=same(gold[-1], predicted[-1]))


def same(gold: object, predicted: object) -> bool:
    """Whether a predicted state is the gold one."""
    if isinstance(gold, list | tuple):
        entries = [str(entry) for entry in cast("Sequence[object]", gold)]
        if isinstance(predicted, str):
            return entries == ([] if predicted in ("", EMPTY) else [part.strip() for part in predicted.split(",")])
        if not isinstance(predicted, list):
            return False
        given = cast("list[object]", predicted)
        return all(_is_scalar(entry) for entry in given) and entries == [str(entry) for entry in given]
    if not _is_scalar(predicted):
        return False
    if isinstance(gold, int):
        text = str(predicted).strip()
        return _INTEGER.fullmatch(text) is not None and int(text) == gold
    return str(predicted) == gold or (gold == "" and predicted == EMPTY)


_NOBODY = Prompt(id="given", messages=(), gold="", task="given")


def _label(prompt: Prompt, cfg: Config) -> Label | None:
    if not cfg.column:
        return read_label(prompt.gold)
    found = prompt.columns.get(cfg.column)
    if not isinstance(found, list | tuple):
        have = ", ".join(prompt.columns) or "none"
        problem = f"prompt '{prompt.id}' has no states in its column '{cfg.column}' (columns: {have})"
        raise ConfigError("column", problem, fix="name the column that lists the states on the way, or leave it empty")
    states = (*cast("Sequence[object]", found), prompt.gold)
    return Label(states=cast("tuple[State, ...]", states)) if all(map(_is_state, states)) else None


def _out(trajectory: Trajectory, label: Label | None, cfg: Config) -> RewardOut:
    if label is None:
        return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="unparsed/gold")
    answer = read(trajectory.text, cfg)
    if answer.problem:
        verdict = Verdict.NO_ANSWER if answer.problem == "no_answer" else Verdict.UNPARSABLE
        return RewardOut(value=0.0, verdict=verdict, reason=answer.problem, breakdown=_NOTHING.parts)
    found = measure(label.states, answer.states)
    right = found.fm if cfg.correct == "final" else found.sm
    return RewardOut(
        value=cfg.final * found.fm + cfg.prefix * found.pa,
        verdict=Verdict.CORRECT if right else Verdict.WRONG,
        reason=RIGHT if right else WRONG,
        extracted=_shown(answer.states[-1]),
        breakdown={**found.parts, FIRST_ERROR: float(found.first_error)},
        per_token=_on_tokens(found, len(label.states), answer, trajectory, cfg),
    )


def _on_tokens(found: Measures, gold: int, answer: Answer, trajectory: Trajectory, cfg: Config) -> tuple[float, ...]:
    """[tokens] What each state adds to the prefix accuracy, on the token that completes it: of those up to it, only."""
    if not (cfg.dense and trajectory.ends and answer.ends and found.pml):
        return ()
    out = [0.0] * len(trajectory.ends)
    for count, end in enumerate(answer.ends, 1):
        added = (count <= found.pml) / gold
        if count > gold:
            added = found.pml / count - found.pml / (count - 1)
        out[min(bisect_left(trajectory.ends, end), len(out) - 1)] += cfg.prefix * added
    return tuple(out)


def _lines(text: str, start: int) -> Answer:
    """One state per line; the last line begins with the mark, and no other does."""
    states, ends, place, marked = list[str](), list[int](), start, False
    for piece in text[start:].split("\n"):
        place += len(piece) + 1
        line = piece.strip()
        if not line:
            continue
        if marked:
            return Answer(problem="no_answer")
        marked = line.startswith(MARK)
        states.append(line.removeprefix(MARK).strip() if marked else line)
        ends.append(place - 1 - (len(piece) - len(piece.rstrip())))
    return Answer(states=tuple(states), ends=tuple(ends)) if marked else Answer(problem="no_answer")


def _json(text: str) -> Answer:
    try:
        found: object = json.loads(text[text.index("{") :])
    except (ValueError, RecursionError):
        return Answer(problem="unparsed/prediction")
    if not isinstance(found, dict) or "final" not in found:
        return Answer(problem="unparsed/prediction")
    record = cast("dict[str, object]", found)
    between = record.get("intermediate", [])
    if not isinstance(between, list):
        return Answer(problem="unparsed/prediction")
    return Answer(states=(*cast("list[object]", between), record["final"]))


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_state(value: object) -> bool:
    return _is_scalar(value) or (isinstance(value, list | tuple) and all(map(_is_scalar, cast("list[object]", value))))


def _shown(state: object) -> str:
    return state if isinstance(state, str) else json.dumps(state)
