"""Explanations that programs wrote: the policy writes programs for a question, and those that run and come out right
are told line by line as they ran, which is what is learnt.

    question -> `programs` programs -> run in a sandbox -> trace and last line printed -> verifier -> row

    a line of a program      total = 3 * 4        for x in [2, 5]:
    the same in the trace    total = 3 * 4 = 12   for x in [2, 5]: x = 2

A row's `completion` is the trace and `answer` with what the program printed last in the place of {}; it is kept if the
run's first reward finds it right. `rationale` and `label` are the two apart, for a stage with `examples: rationale`,
which learns them as two tasks. Equal traces of a question count once, and the first `most` are kept.

Source: Visual Program Distillation (Hu et al. 2024, arXiv 2312.03052, section 3), without its pictures: five programs
at a temperature of 0.5, of those with a right result one is chosen, and a language model puts the trace into words.
Here rules put it into lines, so that it says what was computed and nothing else.

What can go wrong: to write programs a policy has to follow instructions. A program can be right by luck, or print an
answer that the policy knew without computing it: then the trace is short, and `min_steps` leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer, Execution
from rlhf.core.types import Group, Json, Message, Prompt, Verdict

CONTINUES = True
WHOLE_GROUPS = False
WRONG_TOO = False
UNSAMPLED = True

BEGIN = "```python\n"
_ASSIGNED = re.compile(r"(\w+) = ([^=,]+)")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How programs are asked for, and what becomes of them."""

    programs: int = 5
    """Programs per question."""
    most: int = 1
    """Rows per question, the first ones; 0 takes all."""
    instruction: str = (
        "Write a short Python program that works out the answer to this question step by step, with a variable for"
        " every intermediate result, and prints the answer alone in its last line.\n\n{}"
    )
    """What the policy is asked; {} is the question."""
    answer: str = "#### {}"
    """Last line of a completion; {} is what the program printed last."""
    min_steps: int = 1
    """Leave out programs of which fewer lines gave a value a name."""
    timeout_s: float = 5.0
    """Seconds that a program may run."""

    def __post_init__(self) -> None:
        if self.programs < 1:
            raise ConfigError("programs", f"{self.programs} programs are none", fix="use 5")
        for name in ("most", "min_steps"):
            if vars(self)[name] < 0:
                raise ConfigError(name, f"{vars(self)[name]} is negative", fix="use 1, or 0")
        for name in ("instruction", "answer"):
            if vars(self)[name].count("{}") != 1:
                raise ConfigError(name, "has no place for what is to stand in it", fix="write {} where it belongs")
        if not self.timeout_s > 0:
            raise ConfigError("timeout_s", f"{self.timeout_s} leaves no time", fix="use 5")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions."""
    prompts = [group.prompt for group in groups for _ in range(cfg.programs)]
    asked = [_asked(prompt, n % cfg.programs, cfg) for n, prompt in enumerate(prompts)]
    programs = [BEGIN + text for text in await continuer.ask(asked, begin=BEGIN)]
    ran = await continuer.execute(programs, seconds=cfg.timeout_s)
    told = [(n, told) for n, one in enumerate(ran) if (told := _told(one, cfg)) is not None]
    answers = [(prompts[n], f"{trace}\n{label}".lstrip("\n")) for n, (trace, label) in told]
    rows: dict[str, dict[str, dict[str, Json]]] = {group.prompt.id: {} for group in groups}
    for (n, (trace, label)), (prompt, text), reward in zip(told, answers, await continuer.graded(answers), strict=True):
        found = rows[prompt.id]
        if reward.verdict is Verdict.CORRECT and text not in found and not (cfg.most and len(found) >= cfg.most):
            name = asked[n].id
            found[text] = _row(prompt, text, trace, label) | {"program": programs[n], "program_id": name}
    return [row for found in rows.values() for row in found.values()]


def trace(execution: Execution) -> str:
    """The steps of a program, one a line."""
    return "\n".join(_line(source, values) for source, values in execution.steps)


def _line(source: str, values: str) -> str:
    """A line with what it gave: `c = a + b = 7` where it names one value and computes it, `c = 7` where it just names
    it, `for x in xs: x = 2` else."""
    if source == values:
        return source
    name, _, value = values.partition(" = ")
    if _ASSIGNED.fullmatch(source) and source.startswith(f"{name} = "):
        return f"{source} = {value}"
    return f"{source.rstrip(':')}: {values}"


def _told(execution: Execution, cfg: Config) -> tuple[str, str] | None:
    """Trace and answer of a program that ran to its end and printed something."""
    printed = execution.printed.strip().splitlines()
    if execution.failure or not printed or len(execution.steps) < cfg.min_steps:
        return None
    return trace(execution), cfg.answer.replace("{}", printed[-1].strip())


def _asked(prompt: Prompt, number: int, cfg: Config) -> Prompt:
    """The request for a program."""
    *before, last = prompt.messages
    question = Message(role=last.role, content=cfg.instruction.replace("{}", last.content))
    return replace(prompt, id=f"{prompt.id}~program{number}", messages=(*before, question))


def _row(prompt: Prompt, text: str, rationale: str, label: str) -> dict[str, Json]:
    return {
        "prompt_id": prompt.id,
        "messages": prompt.chat,
        "completion": text,
        "rationale": rationale,
        "label": label,
        "gold": prompt.gold,
        "verdict": Verdict.CORRECT.value,
    }
