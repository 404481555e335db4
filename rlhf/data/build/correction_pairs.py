"""Pairs of a teacher's correction of a wrong step and the student's own, for DPO: learning to mend one's own mistakes.

    stages: [mistakes, pairs, prefer]
    mistakes: {loop: generate, select: all, build: corrections}                         the student's own corrections
    pairs: {loop: generate, start: TEACHER, samples_per_prompt: 0, build: {name: correction_pairs, student: mistakes}}
    prefer: {loop: offline, start: STUDENT, data: pairs, examples: pairs, loss: dpo}

The stage's model is the teacher: it is shown what the student was shown, at most `tries` times, until a correction
leads to a right answer; what never does makes no pair. The student's reply is the rejected one, whatever it says,
unless it was verified too (`only_failed`). What both are asked is the question of the pair.

Source: the second stage of SuperCorrect, cross-model DPO (Yang et al. 2024, arXiv 2410.09008, section 4.2), with at
most three tries; see `rlhf.data.build.corrections` for what differs. There the student's correction is rejected even
where it is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import Continuer
from rlhf.core.seeding import content_key
from rlhf.core.types import Group, Json
from rlhf.data.build import corrections
from rlhf.data.build.corrections import BEGIN, Mistake

CONTINUES = True
WHOLE_GROUPS = False
WRONG_TOO = False
SOURCES = {"student": "corrections"}
UNSAMPLED = True


@dataclass(frozen=True, kw_only=True)
class Config(corrections.Config):
    """Whose mistakes, and how often the teacher is asked."""

    student: str = ""
    """The stage with `build: corrections` whose model made the mistakes, or the JSONL file of one."""
    tries: int = 3
    """Corrections of one mistake, at most."""
    only_failed: bool = True
    """Leave out mistakes that the student corrected itself."""

    def __post_init__(self) -> None:
        corrections.Config.__post_init__(self)
        if not self.student:
            fix = "name a stage before this one, with loop: generate, build: corrections and select: all"
            raise ConfigError("student", "nobody made mistakes", fix=fix)
        if self.tries < 1:
            raise ConfigError("tries", f"{self.tries} tries are none", fix="use 3")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions, of each in the order of the student's rows."""
    source = continuer.rows(cfg.student, where="build.student")
    rows = [(group, row) for group in groups for row in source.get(content_key(group.prompt), ())]
    asked = [_mistake(group, row, cfg) for group, row in rows if not (cfg.only_failed and row.get("verified"))]
    own = [str(row["reply"]) for _, row in rows if not (cfg.only_failed and row.get("verified"))]
    taught: dict[int, tuple[str, str]] = {}
    for number in range(cfg.tries):
        left = [n for n in range(len(asked)) if n not in taught]
        tag = f"teacher{number}"
        replies = await corrections.corrected([asked[n] for n in left], cfg, continuer, tag=tag)
        taught |= {n: (text, tag) for n, (text, verified) in zip(left, replies, strict=True) if verified}
    return [
        _row(asked[n], cfg, *taught[n], own=own[n]) for n in sorted(taught) if taught[n][0].strip() != own[n].strip()
    ]


def _mistake(group: Group, row: Mapping[str, Any], cfg: Config) -> Mistake:
    try:
        return Mistake(
            prompt=group.prompt, name=str(row["sample_id"]), before=str(row["before"]), step=str(row["step"])
        )
    except KeyError as error:
        problem = f"a row of '{cfg.student}' tells no mistake: it lacks {error}"
        raise DataError("build.student", problem, fix="give the dataset of a stage with build: corrections") from error


def _row(mistake: Mistake, cfg: Config, text: str, tag: str, *, own: str) -> dict[str, Json]:
    asked = corrections.asked_of(mistake, cfg, tag=tag)
    return {
        "prompt_id": mistake.prompt.id,
        "messages": asked.chat,
        "beginning": BEGIN,
        "chosen": text,
        "rejected": own,
        "gold": mistake.prompt.gold,
        "chosen_id": asked.id,
        "rejected_id": f"{mistake.name}~own",
        "sample_id": mistake.name,
    }
