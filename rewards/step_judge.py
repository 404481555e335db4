"""Where an answer first goes wrong, in the opinion of another language model that reads it step by step.

    rewards:
      math: {}
      step_judge: {url: 'http://localhost:8000/v1', model: Qwen/Qwen2.5-72B-Instruct, weight: 0}

A critic of processes, as ProcessBench prompts one (Zheng et al. 2024, arXiv 2412.06559) and as Zhang et al. 2025 (arXiv
2501.07301, appendix C) label the steps of solutions: paragraph by paragraph, up to the first error. With the first
wrong step j of n, counted from 0 and -1 where none is,

    value = 1 where j = -1, else j / n: the share of steps that are right before the first that is not

The breakdown has `first_error` and `steps`. With `weight: 0` nothing is trained on it, and a generate stage whose
builder is `step_labels` with `consensus: true` keeps the solutions in which it agrees with completions.

Deviations from the paper: the judge ends with a JSON object instead of tags for its analyses, since one place is read
(`rewards.judge.reading`); and what it reads is quoted, with a numbered line before each step that no answer can forge.

Trust is as in `rewards.judge`: its word is an opinion that the text may sway, so it is refused as first reward, gate,
factor or verifier, unless `decides` says so; an answer is `correct` then where no step is wrong. What could not be read
has no value: reasons and rates are those of `rewards.judge`. An answer without a step is worth 0 (`no_answer`), one of
more than `max_steps` steps or `max_chars` characters too (`unparsable`).

How it can be hacked: by steps that look right to the judge, and by idle right steps in front of an error, which raise
j / n. Keep `weight` small, or 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rewards import base
from rewards.judge import asking, reading, sheet
from rewards.judge.asking import Asking
from rewards.judge.endpoint import Failure, Reply
from rewards.judge.sheet import Conversation
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Tools
from rlhf.core.outcomes import FIRST_ERROR, NO_ERROR
from rlhf.core.steps import split
from rlhf.core.types import Group, Json, Prompt, RewardOut, Verdict

_READ = ("json", "schema")
_RULES = """\
{instructions}

{suspicion} Before each step of the answer stands a line {step}, with its number.

Review the steps in their order: recalculate, and check that each follows from what stands before it. The first step \
with an error is the one that is asked for; what comes after it does not matter. If no step has an error, the number \
is -1.

{form}"""


@dataclass(frozen=True, kw_only=True)
class Config(base.RewardConfig, Asking):
    """Who reads the steps, and how it is asked."""

    instructions: str = "You find the first error in solutions, if there is one."
    """How the judge is addressed; what is asked, form of the reply and the words about quoted data follow."""
    separator: str = "\n"
    """What separates the steps of an answer."""
    reference: bool = False
    """Show the judge the gold, or the worked solution where there is one."""
    read: str = "json"
    """How a reply is read: it ends with a JSON object (`json`), or is one, which the endpoint enforces (`schema`)."""
    system: bool = True
    """Put the rules in a system message; false puts them before the data, for chat templates without that role."""
    max_steps: int = 64
    """Steps of an answer up to which it is shown."""
    max_chars: int = 20_000
    """Characters of an answer up to which it is shown."""
    max_tokens: int = 2048
    """Of a reply, its thinking included."""
    decides: bool = False
    """Let an opinion decide what is right: allow it as first reward, gate, factor and verifier."""

    def __post_init__(self) -> None:
        base.RewardConfig.__post_init__(self)
        Asking.__post_init__(self)
        if self.read not in _READ:
            raise ConfigError("read", f"'{self.read}' is not a way to read", fix=did_you_mean(self.read, _READ))
        asking.check_read(self, self.read)
        if not self.separator:
            raise ConfigError("separator", "is empty", fix="use a line break, or two for paragraphs")
        for name in ("max_steps", "max_chars"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} shows nothing", fix="use 1 or more")

    @property
    def advisory(self) -> bool:
        return not self.decides

    @property
    def costly(self) -> bool:
        return True


def score(group: Group, cfg: Config, tools: Tools) -> list[RewardOut]:
    """Have the first error of every answer found; equal answers are asked about once.

    Raises:
        ConfigError: the key is not set, the folder of model or cache cannot be used.
    """
    texts = [trajectory.text for trajectory in group.trajectories]
    steps = {text: [step.text for step in split(text, separator=cfg.separator)] for text in texts}
    outs = {text: _worthless(text, steps[text], cfg) for text in texts}
    asked = [text for text, out in outs.items() if out is None]
    form = _schema(cfg) if cfg.read == "schema" else None
    replies = asking.replies([ask(cfg, group.prompt, steps[text]) for text in asked], cfg, form=form)
    judged = {text: _out(reply, len(steps[text]), cfg) for text, reply in zip(asked, replies, strict=True)}
    return [outs[text] or judged[text] for text in texts]


def ask(cfg: Config, prompt: Prompt, steps: Sequence[str]) -> Conversation:
    """The messages that ask for the first error of an answer."""
    data = {"QUESTION": sheet.quoted(sheet.question(prompt))}
    if cfg.reference:
        data["REFERENCE"] = sheet.quoted(prompt.solution or prompt.gold)
    shown = [sheet.quoted(step) for step in steps]
    mark = sheet.mark_of([*data.values(), *shown])
    numbered = [f"{sheet.line('STEP', str(n), mark)}\n{step}" for n, step in enumerate(shown)]
    data["ANSWER"] = "\n".join(numbered)
    blocks = [
        f"{sheet.line('BEGIN', name, mark)}\n{text}\n{sheet.line('END', name, mark)}" for name, text in data.items()
    ]
    form = _form(cfg)
    rules = _RULES.format(
        instructions=cfg.instructions.strip(),
        suspicion=sheet.suspicion([*data], mark=mark),
        step=sheet.line("STEP", "N", mark),
        form=form,
    )
    request = "\n\n".join([*blocks, f"The data has ended. Find the first error of the ANSWER marked {mark}. {form}"])
    return sheet.conversation(rules, request, system=cfg.system)


def _form(cfg: Config) -> str:
    found = json.dumps({FIRST_ERROR: "N"}).replace('"N"', "N")
    if cfg.read == "schema":
        return f"Reply with one JSON object and nothing else: {found}"
    return f"You may think first. End your reply with one JSON object: {found}"


def _schema(cfg: Config) -> Mapping[str, Json]:
    """See `rewards.judge.sheet.schema`."""
    number: Json = {"type": "integer", "minimum": NO_ERROR, "maximum": cfg.max_steps - 1}
    found: Json = {
        "type": "object",
        "properties": {FIRST_ERROR: number},
        "required": [FIRST_ERROR],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": FIRST_ERROR, "strict": True, "schema": found}}


def _worthless(text: str, steps: Sequence[str], cfg: Config) -> RewardOut | None:
    """The outcome of an answer that is not shown to a judge."""
    if len(text) > cfg.max_chars or len(steps) > cfg.max_steps:
        reason = "limit/chars" if len(text) > cfg.max_chars else "limit/steps"
        return RewardOut(value=0.0, verdict=Verdict.UNPARSABLE, reason=reason, breakdown=asking.rates())
    if not steps:
        return RewardOut(value=0.0, verdict=Verdict.NO_ANSWER, reason="judge/empty", breakdown=asking.rates())
    return None


def _out(reply: Reply | Failure, steps: int, cfg: Config) -> RewardOut:
    if isinstance(reply, Failure):
        return asking.failed(reply)
    found = None if reply.cut else reading.last_object(reply.text, read=cfg.read).get(FIRST_ERROR)
    if not isinstance(found, int) or isinstance(found, bool) or not NO_ERROR <= found < steps:
        return asking.unreadable(cut=reply.cut)
    verdict = Verdict.SKIPPED
    if cfg.decides:
        verdict = Verdict.CORRECT if found == NO_ERROR else Verdict.WRONG
    return RewardOut(
        value=1.0 if found == NO_ERROR else found / steps,
        verdict=verdict,
        reason="judge/graded",
        breakdown={FIRST_ERROR: float(found), "steps": float(steps), **asking.rates()},
    )
