"""Whether an answer does what it was told: instructions that a program can check, in the record format of IFEval.

    verify("no commas here", '{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}').value   # 1.0

The gold of a prompt is a record (`rlhf.core.instructions`); the task `ifeval` makes them. There is one checker for each
of the 25 instructions of IFEval (Zhou et al. 2023, arXiv 2311.07911), and for 30 that are trained on beside them
(`ifeval`, `trained`); their docstrings list where we decide otherwise than the original code, and why.

    value = 1 when all instructions are followed, else 0               credit: all, the paper's prompt level
          = followed / all instructions                                credit: fraction, as open-instruct trains

With `loose: true` an instruction is followed if any of eight variants of the answer follows it: as it is, without its
first, last, or both lines, and each of these without asterisks. Meant for measuring:
training on it teaches to add a line that is cut off. What stands before the last `</think>` is not looked at.

    what happened                                    value     verdict      reason
    every instruction is followed                    1.0       correct      constraints/followed
    one is not                                       0, or     wrong        constraints/<id of the first>
                                                     a share
    nothing but white space, a <think> left open     0.0       no_answer    no_answer, unterminated
    the answer has more than `max_chars`             0.0       unparsable   limit/chars
    the gold is no record                            None      unparsable   unparsed/gold

In the breakdown: 0 or 1 per id (`punctuation:no_comma`), the four accuracies of the paper for this answer
(`prompt_strict`, `prompt_loose`; `inst_strict` and `inst_loose`, shares), and `instructions`, their number.

Every checker is linear in the answer, no part of an answer is a regular expression, and nothing is read or downloaded
at run time; instructions about languages need the package py3langid. How it can be hacked: by nonsense in the right
form, since nothing here reads what an answer means. Docs and configs: `docs/rewards.md`, `configs/rewards`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from rewards import base
from rewards.constraints.table import CHECKERS, follows
from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.instructions import Instruction, read_gold, read_record
from rlhf.core.modules import Tools
from rlhf.core.types import Group, Prompt, RewardOut, Verdict

__all__ = ["CHECKERS", "Accuracies", "Config", "accuracies", "score", "variants", "verify"]

FOLLOWED = "constraints/followed"
_CREDITS = ("all", "fraction")
_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig):
    """What following some of the instructions is worth, and how strictly they are read."""

    credit: str = "all"
    """`all`: 1 when every instruction is followed, else 0. `fraction`: the share of those that are."""
    loose: bool = False
    """Accept what one of eight variants of the answer follows: without first or last line, without asterisks."""
    column: str = ""
    """Column of the dataset row with the record; empty for the prompt's gold."""
    max_chars: int = 50_000
    """Longer answers are worth 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.credit not in _CREDITS:
            raise ConfigError(
                "credit", f"'{self.credit}' is not one of the choices", fix=did_you_mean(self.credit, _CREDITS)
            )
        if self.max_chars < 1:
            raise ConfigError("max_chars", f"{self.max_chars} leaves no answer", fix="use 50000")


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracies:
    """The four numbers of the paper, each in [0, 1]."""

    prompt_strict: float
    inst_strict: float
    """Over all instructions of all prompts, not the mean of shares."""
    prompt_loose: float
    inst_loose: float


_DEFAULT = Config()


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Check every answer of a group.

    Raises:
        ConfigError: `column` is not there, or a check needs a package that is not installed.
    """
    record = _record(group.prompt, cfg)
    return [verify(trajectory.text, record, cfg=cfg) for trajectory in group.trajectories]


def verify(completion: str, record: str | Mapping[str, Any], *, cfg: Config | None = None) -> RewardOut:
    """Check one completion.

    Args:
        completion: the model's text, up to the end of its sequence.
        record: with `instruction_id_list` and `kwargs`, or its JSON text.
        cfg: how strictly; None for the defaults.

    Raises:
        ConfigError: a check needs a package that is not installed.
    """
    cfg = cfg or _DEFAULT
    try:
        told = _read(record) if isinstance(record, str) else read_record(record, where="record")
    except DataError:
        return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="unparsed/gold")
    answer = completion.rpartition(_THINK_CLOSE)[2]
    if _THINK_OPEN in answer:
        return RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason="unterminated", breakdown=_nothing(told))
    if not answer.strip():
        return RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason="no_answer", breakdown=_nothing(told))
    if len(answer) > cfg.max_chars:
        return RewardOut(value=0.0, verdict=Verdict.UNPARSABLE, reason="limit/chars", breakdown=_nothing(told))
    strict = [follows(answer, instruction) for instruction in told]
    others = variants(answer)[1:]
    loose = [
        found or any(follows(other, instruction) for other in others)
        for found, instruction in zip(strict, told, strict=True)
    ]
    return _out(told, strict, loose, cfg)


def variants(answer: str) -> list[str]:
    """The answer as it is, then the others that the loose reading accepts, each once."""
    lines = answer.split("\n")
    cut = [answer, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return list(dict.fromkeys([*cut, *(text.replace("*", "") for text in cut)]))


def accuracies(outs: Iterable[RewardOut]) -> Accuracies:
    """The numbers that papers report, of answers that `verify` has graded; ungraded ones are left out.

    Raises:
        ValueError: none is graded.
    """
    found = [out.breakdown for out in outs if out.value is not None]
    if not found:
        raise ValueError("there is no graded answer")
    told = sum(_number(parts, "instructions") for parts in found)
    mean = {
        name: sum(_number(parts, name) for parts in found) / len(found) for name in ("prompt_strict", "prompt_loose")
    }
    share = {
        name: sum(_number(parts, name) * _number(parts, "instructions") for parts in found) / told
        for name in ("inst_strict", "inst_loose")
    }
    return Accuracies(**mean, **share)


@lru_cache(maxsize=2**16)
def _read(gold: str) -> tuple[Instruction, ...]:
    return read_gold(gold, where="gold")


def _record(prompt: Prompt, cfg: Config) -> str | Mapping[str, Any]:
    if not cfg.column:
        return prompt.gold
    found = prompt.columns.get(cfg.column)
    if isinstance(found, str | Mapping):
        return cast("str | Mapping[str, Any]", found)
    have = ", ".join(prompt.columns) or "none"
    problem = f"prompt '{prompt.id}' has no record in its column '{cfg.column}' (columns: {have})"
    raise ConfigError("column", problem, fix="name the column that holds instruction_id_list and kwargs")


def _out(told: Sequence[Instruction], strict: Sequence[bool], loose: Sequence[bool], cfg: Config) -> RewardOut:
    counted = loose if cfg.loose else strict
    missed = next((i.id for i, followed in zip(told, counted, strict=True) if not followed), None)
    value = sum(counted) / len(counted) if cfg.credit == "fraction" else float(missed is None)
    return RewardOut(
        value=value,
        verdict=Verdict.CORRECT if missed is None else Verdict.WRONG,
        reason=FOLLOWED if missed is None else f"constraints/{missed}",
        breakdown={**_by_id(told, counted), **_levels(strict, loose)},
    )


def _by_id(told: Sequence[Instruction], followed: Sequence[bool]) -> dict[str, float]:
    """1 per id that is followed, every time that it is asked for."""
    found = dict[str, float]()
    for instruction, done in zip(told, followed, strict=True):
        found[instruction.id] = min(found.get(instruction.id, 1.0), float(done))
    return found


def _levels(strict: Sequence[bool], loose: Sequence[bool]) -> dict[str, float]:
    return {
        "prompt_strict": float(all(strict)),
        "inst_strict": sum(strict) / len(strict),
        "prompt_loose": float(all(loose)),
        "inst_loose": sum(loose) / len(loose),
        "instructions": float(len(strict)),
    }


def _nothing(told: Sequence[Instruction]) -> dict[str, float]:
    """The breakdown of an answer that follows nothing."""
    missed = [False] * len(told)
    return {**_by_id(told, missed), **_levels(missed, missed)}


def _number(parts: Mapping[str, float | None], name: str) -> float:
    value = parts[name]
    assert value is not None, "verify gives every answer its levels"
    return value
