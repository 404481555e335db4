"""Whether an answer is the same thing as the gold: lists in order, sets, truth values, numbers, trees, formulas, texts.

    verify("so it is\\n#### c,b", '{"kind":"set","answer":["b","c"]}').value   # 1.0

The gold says of what kind the answer is (`rlhf.core.answers`), and with that how it is compared:

    ordered    the same entries in the same order, none more
    set        the same entries, each once
    boolean    yes, no, true or false, whatever the case
    number     |answer - gold| <= tolerance, on exact fractions
    edges      the same edges, in any order, each once: `a>b`, `a -> b`, with labels `a -(3)-> b`
    tokens     the same symbols, however spaced: a formula in prefix or postfix notation
    infix      a formula that is built up like the gold; brackets that change nothing may be there or not
    text       the same text

One answer is read: if the completion ends with `}` (or a fence behind it) the `answer` of the JSON object that begins
with the last brace, else what stands behind `####` in the last line. Entries stand between commas, or are a JSON list;
none at all is `none`, `no edges`, null, or an empty list. Nothing is evaluated, and numbers are at most 40 characters.

Source of kinds and tolerance: HiBench (Jiang et al. 2025, arXiv 2503.00912). Its evaluator compares truth values as
texts that are not empty, so that all are equal, forgets the order of lists and what is longer in one of them, and
accepts a number that is part of another one; none of that is so here.

    what happened                                   value    verdict       reason
    the same                                        1.0      correct       structure/<kind>
    another one                                     0.0      wrong         mismatch
    no `####` in the last line, nothing behind it   0.0      no_answer     no_answer
    it cannot be read as what it should be          0.0      unparsable    unparsed/prediction
    longer than `max_chars`                         0.0      unparsable    limit/chars
    the gold is no answer                           None     unparsable    unparsed/gold

For questions of yes and no the breakdown has `said_yes`, `is_yes` and `both_yes`, of which `f1` makes the F1 score that
classifiers are measured by; their means are logged.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

from rewards import base
from rlhf.core import answers
from rlhf.core.answers import Answer, Kind
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict

MARK = "####"
MISMATCH = "mismatch"
_TRUTH = {"yes": True, "true": True, "no": False, "false": False}
_EMPTY = ("", answers.NONE, "no edges", "null")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,24}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
_EDGE = re.compile(r"([^\s>(),-]+)\s*(?:-\(([^()]*)\))?-?>\s*([^\s>(),-]+)")
_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]+)?|[a-z]+|[-+*/^()]")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """How near numbers have to be, and how long an answer may be."""

    tolerance: float = 0.01
    """How far a number may be from the gold."""
    max_chars: int = 20_000
    """Longer answers are worth 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tolerance < math.inf:
            raise ConfigError("tolerance", f"{self.tolerance} is no distance", fix="use 0.01, or 0")
        if self.max_chars < 1:
            raise ConfigError("max_chars", f"{self.max_chars} leaves no answer", fix="use 20000")


_DEFAULT = Config()


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Grade every answer of a group."""
    return [verify(trajectory.text, group.prompt.gold, cfg=cfg) for trajectory in group.trajectories]


def verify(completion: str, gold: str, *, cfg: Config | None = None) -> RewardOut:
    """Grade one completion.

    Args:
        completion: the model's text, up to the end of its sequence.
        gold: the JSON text of an answer with its kind.
        cfg: how strictly; None for the defaults.
    """
    cfg = cfg or _DEFAULT
    try:
        wanted = answers.read_gold(gold)
    except DataError:
        return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="unparsed/gold")
    if len(completion) > cfg.max_chars:
        return _unread("limit/chars", Verdict.UNPARSABLE, None, wanted)
    candidate = extract(completion)
    if candidate is None:
        return _unread("no_answer", Verdict.NO_ANSWER, None, wanted)
    shown = candidate if isinstance(candidate, str) else json.dumps(candidate)
    same = _compare(candidate, wanted, cfg)
    if same is None:
        return _unread("unparsed/prediction", Verdict.UNPARSABLE, shown, wanted)
    return RewardOut(
        value=float(same),
        verdict=Verdict.CORRECT if same else Verdict.WRONG,
        reason=f"structure/{wanted.kind}" if same else MISMATCH,
        extracted=shown,
        breakdown=_said(wanted, bool(wanted.value) is same if wanted.kind is Kind.BOOLEAN else None),
    )


def extract(completion: str) -> object | None:
    """The one answer of a completion, a text or what JSON gives; None where there is none."""
    body = completion.rpartition("</think>")[2].rstrip()
    unfenced = body.removesuffix("```").rstrip()
    if unfenced.endswith("}") and "{" in unfenced:
        return _from_json(unfenced[unfenced.rindex("{") :])
    last = body.rpartition("\n")[2].strip()
    return last.removeprefix(MARK).strip() or None if last.startswith(MARK) else None


def f1(outs: Iterable[RewardOut]) -> float:
    """The F1 score of graded answers to questions of yes and no; an answer that cannot be read says no.

    Raises:
        ValueError: no answer says yes and none should.
    """
    parts = [out.breakdown for out in outs if "is_yes" in out.breakdown]
    both, said, wanted = (sum(part[name] or 0.0 for part in parts) for name in ("both_yes", "said_yes", "is_yes"))
    if not said + wanted:
        raise ValueError("there is no yes, neither said nor wanted")
    return 2 * both / (said + wanted)


def postfix(formula: str) -> tuple[str, ...] | None:
    """A formula in infix notation, in postfix notation; None where it is none. `^` binds to the right.

    Source: Dijkstra's shunting yard (1961, MC report 35).
    """
    tokens = tokenize(formula)
    if not tokens or not _whole(tokens, formula):
        return None
    out, waiting, operand = list[str](), list[str](), True
    for token in tokens:
        if token in _PRECEDENCE:
            if operand:
                return None
            while waiting and _first(waiting[-1], token):
                out.append(waiting.pop())
            waiting.append(token)
            operand = True
        elif token == ")":
            if operand:
                return None
            while waiting and waiting[-1] != "(":
                out.append(waiting.pop())
            if not waiting:
                return None
            waiting.pop()
        elif not operand:
            return None
        elif token == "(":
            waiting.append(token)
        else:
            out.append(token)
            operand = False
    out += reversed(waiting)
    return None if operand or "(" in waiting else tuple(out)


def tokenize(formula: str) -> tuple[str, ...]:
    """Numbers, names and symbols of a formula."""
    return tuple(_TOKEN.findall(formula))


def _whole(tokens: Sequence[str], formula: str) -> bool:
    """Whether tokens are all that a formula is made of."""
    return sum(map(len, tokens)) == len("".join(formula.split()))


def _first(waiting: str, token: str) -> bool:
    """Whether a waiting operator comes before this one."""
    if waiting == "(":
        return False
    return _PRECEDENCE[waiting] > _PRECEDENCE[token] or (_PRECEDENCE[waiting] == _PRECEDENCE[token] and token != "^")


def _from_json(text: str) -> object | None:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("Mapping[str, object]", found).get("answer", None) if isinstance(found, Mapping) else None


def _compare(candidate: object, wanted: Answer, cfg: Config) -> bool | None:
    """Whether a candidate is the gold; None where it cannot be read."""
    if wanted.kind is Kind.BOOLEAN:
        read = candidate if isinstance(candidate, bool) else _TRUTH.get(str(candidate).strip().lower())
        return None if read is None else read is wanted.value
    if wanted.kind in (Kind.ORDERED, Kind.SET):
        entries = _entries(candidate)
        if entries is None:
            return None
        gold = cast("tuple[str, ...]", wanted.value)
        return entries == list(gold) if wanted.kind is Kind.ORDERED else Counter(entries) == Counter(gold)
    text = str(candidate).strip() if isinstance(candidate, str | int | float) else None
    if text is None or isinstance(candidate, bool):
        return None
    if wanted.kind is Kind.NUMBER:
        return _near(text, cast(str, wanted.value), cfg.tolerance)
    if wanted.kind is Kind.EDGES:
        return _same_edges(text, cast("tuple[tuple[str, ...], ...]", wanted.value))
    if wanted.kind is Kind.TOKENS:
        tokens = tokenize(text)
        return tokens == wanted.value if _whole(tokens, text) else None
    if wanted.kind is Kind.INFIX:
        found = postfix(text)
        return None if found is None else found == wanted.value
    return text == wanted.value


def _entries(candidate: object) -> list[str] | None:
    if isinstance(candidate, list):
        given = cast("list[object]", candidate)
        plain = all(isinstance(entry, str | int) and not isinstance(entry, bool) for entry in given)
        return [str(entry).strip() for entry in given] if plain else None
    if isinstance(candidate, str | int) and not isinstance(candidate, bool):
        text = str(candidate).strip()
        return [] if text.lower() in _EMPTY else [part.strip() for part in text.split(",")]
    return None


def _near(text: str, gold: str, tolerance: float) -> bool | None:
    if not _NUMBER.fullmatch(text):
        return None
    return abs(Fraction(text) - Fraction(gold)) <= Fraction(str(tolerance))


def _same_edges(text: str, gold: Sequence[tuple[str, ...]]) -> bool | None:
    if text.lower() in _EMPTY:
        return not gold
    found = list[tuple[str, ...]]()
    for part in text.split(","):
        edge = _EDGE.fullmatch(part.strip())
        if edge is None:
            return None
        parent, label, child = edge.groups()
        found.append((parent, child) if label is None else (parent, child, label))
    return Counter(found) == Counter(gold)


def _unread(reason: str, verdict: Verdict, shown: str | None, wanted: Answer) -> RewardOut:
    said = False if wanted.kind is Kind.BOOLEAN else None
    return RewardOut(value=0.0, verdict=verdict, reason=reason, extracted=shown, breakdown=_said(wanted, said))


def _said(wanted: Answer, said: bool | None) -> dict[str, float | None]:
    """What F1 is made of: whether yes was said, is right, or both; nothing for other questions."""
    if said is None:
        return {}
    return {
        "said_yes": float(said),
        "is_yes": float(bool(wanted.value)),
        "both_yes": float(said and bool(wanted.value)),
    }
