r"""Grades a final answer in mathematics against a reference: extract one candidate, read it, compare it exactly.

    verify(r"... so it is \boxed{\frac{2}{4}}", "0.5")  ->  value 1.0, correct, match/decimal, extracted "\frac{2}{4}"

A component: `score` grades a group for the rubric; `verify` grades one completion and is useful alone. The ladder and
its limits are in `compare`, `normalize`, `rational`, `structure`, `arithmetic`; `sympy_worker` is optional, and off. A
step is total, bounded and linear or nearly so in the length of the completion; model output is never evaluated.

    what happened                                            value  verdict      reason
    a layer finds the answers equal                          1.0    correct      match/<layer>
    a layer finds them different                             0.0    wrong        mismatch
    the gold is symbolic and the spelling differs:
      with symbolic_mismatch wrong                           0.0    wrong        mismatch/string
      with symbolic_mismatch ungraded                        None   unparsable   ungraded/symbolic
    no marked answer, an empty one, or several               0.0    no_answer    no_answer
    a box, an <answer> or a <think> is left open             0.0    no_answer    unterminated
    the answer cannot be read, though the gold can           0.0    unparsable   unparsed/prediction
    the answer is too long, deep or large                    0.0    unparsable   limit/<which>
    the gold is empty or cannot be read                      None   unparsable   unparsed/gold
    sympy was asked and was killed, or failed                None   timeout, crash

Conventions are those of GSM8K (arXiv 2110.14168: `####`, one number, commas removed) and MATH (arXiv 2103.03874: the
last box). Their graders compare normalised strings; here equal values in different spellings are equal as well.

An unreadable answer is the model's doing and costs it the reward; an unreadable gold is ours and costs the sample. The
rates per reason show a model that learns to exploit the grader.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rewards import base
from rewards.math.compare import MISMATCH, UNDECIDED, compare, is_understood
from rewards.math.extract import boxed, extract, hashes
from rewards.math.lexer import Unreadable
from rewards.math.read import Answer, read
from rewards.math.spec import Spec
from rlhf.core.errors import ConfigError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, RewardOut, Verdict

__all__ = ["Config", "Spec", "parse_gold", "score", "verify"]

_SYMPY = "rewards.math.sympy_worker:same"
_DEFAULT = Spec()


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig, Spec):
    """Weight, and how answers are found and compared."""

    def __post_init__(self) -> None:
        base.RewardConfig.__post_init__(self)
        Spec.__post_init__(self)


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Grade every trajectory of a group against the prompt's gold."""
    return [verify(trajectory.text, group.prompt.gold, spec=cfg, tools=tools) for trajectory in group.trajectories]


def verify(completion: str, gold: str, *, spec: Spec | None = None, tools: Tools | None = None) -> RewardOut:
    """Grade one completion.

    Args:
        completion: the model's text, up to the end of its sequence.
        gold: the reference answer, bare or in a box or behind `####`.
        spec: how to find and compare answers; None for the defaults.
        tools: worker processes, needed when `spec.sympy` is on.

    Raises:
        ConfigError: `spec.sympy` without `tools`.
    """
    spec = spec or _DEFAULT
    if spec.sympy and tools is None:
        raise ConfigError("sympy", "needs worker processes", fix="pass tools=WorkerPool(), or set sympy=false")
    reference = parse_gold(gold)
    if reference is None:
        return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="unparsed/gold")
    found = extract(completion, spec.markers)
    if found.candidate is None:
        return _unread(found.reason, None)
    try:
        prediction = read(found.candidate)
        decision = compare(prediction, reference, spec)
    except Unreadable as error:
        return _unread(error.reason, found.candidate)
    if decision == UNDECIDED and spec.sympy:
        assert tools is not None
        asked = _ask_sympy(prediction, reference, tools, timeout_s=spec.sympy_timeout_s)
        if isinstance(asked, RewardOut):
            return asked
        decision = asked
    return _judged(decision, reference, found.candidate, spec)


@lru_cache(maxsize=2**16)
def parse_gold(gold: str) -> Answer | None:
    r"""Read a reference answer, bare (`17`, `\frac{1}{2}`) or at the end of a solution (`\boxed{…}`, `#### 17`).

    Returns:
        The answer, None when it is empty or cannot be read: nothing can be graded against it.
    """
    marked = boxed(gold) or hashes(gold)
    text = gold if marked is None else marked.candidate
    if text is None or not text.strip():
        return None
    try:
        return read(text.strip())
    except Unreadable:
        return None


def _unread(reason: str, candidate: str | None) -> RewardOut:
    absent = reason in ("no_answer", "unterminated")
    verdict = Verdict.NO_ANSWER if absent else Verdict.UNPARSABLE
    reason = "unparsed/prediction" if reason == "unparsed" else reason
    return RewardOut(value=0.0, verdict=verdict, reason=reason, extracted=candidate)


def _judged(decision: str, gold: Answer, candidate: str, spec: Spec) -> RewardOut:
    if decision.startswith("match/"):
        return RewardOut(value=1.0, verdict=Verdict.CORRECT, reason=decision, extracted=candidate)
    if decision == MISMATCH:
        return RewardOut(value=0.0, verdict=Verdict.WRONG, reason=MISMATCH, extracted=candidate)
    if is_understood(gold):
        return _unread("unparsed", candidate)
    if spec.symbolic_mismatch == "ungraded":
        return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="ungraded/symbolic", extracted=candidate)
    return RewardOut(value=0.0, verdict=Verdict.WRONG, reason=f"{MISMATCH}/string", extracted=candidate)


def _ask_sympy(prediction: Answer, gold: Answer, tools: Tools, *, timeout_s: float) -> str | RewardOut:
    """A decision about two formulas, or the outcome of a question that could not be answered."""
    request = {"prediction": prediction.tokens, "gold": gold.tokens}
    try:
        same = tools.call(_SYMPY, request, timeout_s=timeout_s)
    except TimeoutError:
        return base.timeout("sympy")
    except base.WorkerError as error:
        return base.crash(f"sympy_{error.kind}")
    if same is None:
        return UNDECIDED
    return "match/symbolic" if same else MISMATCH
