"""What the policy says of the first wrong step of its own solutions: why it is wrong, and how it should be.

    question, steps before, wrong step  ->  <Cause>…</Cause><Correction>…</Correction>

Of each wrong sample the first wrong step is found as by the builder `step_labels` with a binary search. A correction is
*verified* if one of `completions` answers that go on from it is right. Rows are what `rlhf.data.build.correction_pairs`
compares a teacher's corrections with; by themselves they say how often a policy can mend what it did.

Source: the second stage of SuperCorrect (Yang et al. 2024, arXiv 2410.09008, section 4.2), where a teacher marks the
first wrong step and a third model inspects corrections; here completions and a verifier do both. The wording of the
instruction is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer
from rlhf.core.steps import split
from rlhf.core.types import Group, Json, Message, Prompt, Trajectory, Verdict
from rlhf.data.build import step_labels

CONTINUES = True
WHOLE_GROUPS = False
WRONG_TOO = True

BEGIN = "<Cause>"
"""How a reply begins."""
_REPLY = re.compile(r"(.*?)</Cause>\s*<Correction>(.*?)</Correction>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Config:
    """How wrong steps are found, and corrections asked for and verified."""

    completions: int = 4
    """Answers from the end of a step to see whether it is right, and from a correction likewise."""
    separator: str = "\n"
    """What separates the steps of an answer."""
    instruction: str = (
        "This is a problem and the beginning of a solution, whose last step is wrong.\n\nProblem:\n{question}\n\nSteps"
        " before:\n{before}\n\nWrong step:\n{step}\n\nSay between <Cause> and </Cause> why the step is wrong, and write"
        " the right step between <Correction> and </Correction>."
    )
    """What is asked; {question}, {before} and {step} are filled in."""

    def __post_init__(self) -> None:
        if self.completions < 1:
            raise ConfigError("completions", f"{self.completions} tell nothing", fix="use 4")
        if not self.separator:
            raise ConfigError("separator", "is empty", fix="use a line break, or two for paragraphs")
        for name in ("{question}", "{before}", "{step}"):
            if name not in self.instruction:
                raise ConfigError("instruction", f"has no place for {name}", fix=f"write {name} where it belongs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong step in a solution."""

    prompt: Prompt
    name: str
    """Id of the sample that made it."""
    before: str
    """The solution up to the step."""
    step: str


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the samples."""
    mistakes = await _found(groups, cfg, continuer)
    replies = await corrected(mistakes, cfg, continuer, tag="own")
    return [
        {
            "prompt_id": mistake.prompt.id,
            "messages": mistake.prompt.chat,
            "gold": mistake.prompt.gold,
            "before": mistake.before,
            "step": mistake.step,
            "reply": reply,
            "verified": verified,
            "sample_id": mistake.name,
        }
        for mistake, (reply, verified) in zip(mistakes, replies, strict=True)
    ]


async def corrected(
    mistakes: Sequence[Mistake], cfg: Config, continuer: Continuer, *, tag: str
) -> list[tuple[str, bool]]:
    """What the policy replies to each mistake, and whether its correction leads to a right answer.

    Args:
        tag: goes into the names of replies, so that other ones are drawn with another tag.
    """
    asked = [asked_of(mistake, cfg, tag=tag) for mistake in mistakes]
    replies = await continuer.ask(asked, begin=BEGIN)
    steps = [found[2].strip() if (found := _REPLY.match(text)) else "" for text in replies]
    told = [n for n, step in enumerate(steps) if step]
    starts = [
        continuer.begun(mistakes[n].prompt, mistakes[n].before + steps[n] + cfg.separator, name=f"{asked[n].id}~verify")
        for n in told
    ]
    groups = await continuer.go_on(starts, count=cfg.completions)
    right = {
        n
        for n, group in zip(told, groups, strict=True)
        if any(reward.verdict is Verdict.CORRECT for reward in group.rewards)
    }
    return [(text, n in right) for n, text in enumerate(replies)]


def asked_of(mistake: Mistake, cfg: Config, *, tag: str) -> Prompt:
    """The request for a correction."""
    *before, last = mistake.prompt.messages
    content = cfg.instruction
    for name, text in (("question", last.content), ("before", mistake.before.strip()), ("step", mistake.step)):
        content = content.replace("{" + name + "}", text)
    messages = (*before, Message(role=last.role, content=content))
    return replace(mistake.prompt, id=f"{mistake.name}~{tag}", messages=messages)


async def _found(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[Mistake]:
    """The first wrong step of each wrong sample."""
    labels = step_labels.Config(separator=cfg.separator, completions=cfg.completions, search="binary")
    samples = {t.id: (group.prompt, t) for group in groups for t in group.trajectories}
    found: list[Mistake] = []
    for row in await step_labels.build(groups, labels, continuer):
        judged = row["labels"]
        assert isinstance(judged, list)
        if 0.0 in judged:
            prompt, answer = samples[str(row["sample_id"])]
            found.append(_mistake(prompt, answer, judged.index(0.0), cfg))
    return found


def _mistake(prompt: Prompt, answer: Trajectory, place: int, cfg: Config) -> Mistake:
    steps = split(answer.text, separator=cfg.separator)
    before = answer.text[: steps[place - 1].end] + cfg.separator if place else ""
    return Mistake(prompt=prompt, name=answer.id, before=before, step=steps[place].text)
