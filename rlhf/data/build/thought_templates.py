r"""Solutions in a fixed form, written by the stage's model: numbered steps, reasons for the hard ones, a general
method.

    <Step1>…</Step1> <Step2>…<Key>why</Key></Step2> …
    <Generalized>how problems like this one are solved</Generalized>
    <Answer>\boxed{…}</Answer>

The model, which is to be a strong one (`start`, or the run's `model`), is asked `tries` times at most; kept is the
first solution that has all of `tags` and that the run's first reward finds right. A row is the bare question with it,
so that whoever learns from the rows writes in this form without being told to.

Source: SuperCorrect (Yang et al. 2024, arXiv 2410.09008, section 4.1), whose hierarchical thought templates a teacher
writes; the wording of the instruction is ours, its tags are not the paper's to the letter. What the second stage of
that paper learns from is `rlhf.data.build.correction_pairs`.

What can go wrong: a right answer does not make steps right. A small model learns the form before what it is for:
compare with plain solutions of the same questions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer
from rlhf.core.types import Group, Json, Message, Prompt, Verdict

CONTINUES = True
WHOLE_GROUPS = False
WRONG_TOO = False
UNSAMPLED = True


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the form is, and how it is asked for."""

    instruction: str = (
        "Solve this problem. Put every step into a tag of its own, <Step1>…</Step1>, <Step2>…</Step2> and so on. Inside"
        " of a step that is hard to follow add <Key>…</Key> with the reason why it is right. Then describe in"
        " <Generalized>…</Generalized> how problems like this one are solved in general, and end with"
        " <Answer>\\boxed{…}</Answer>.\n\n{}"
    )
    """What the model is asked; {} is the question."""
    tags: list[str] = field(default_factory=lambda: ["Step1", "Generalized", "Answer"])
    """Tags that a solution must open and close, in this order."""
    tries: int = 2
    """Solutions per question, at most."""

    def __post_init__(self) -> None:
        if self.instruction.count("{}") != 1:
            raise ConfigError("instruction", "has no place for the question", fix="write {} where it belongs")
        if self.tries < 1:
            raise ConfigError("tries", f"{self.tries} tries are none", fix="use 2")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions; none where no try was right."""
    rows: dict[str, dict[str, Json]] = {}
    for number in range(cfg.tries):
        left = [group.prompt for group in groups if group.prompt.id not in rows]
        asked = [_asked(prompt, number, cfg) for prompt in left]
        texts = [text.strip() for text in await continuer.ask(asked, begin="")]
        formed = [n for n, text in enumerate(texts) if has_form(text, cfg.tags)]
        verdicts = await continuer.graded([(left[n], texts[n]) for n in formed])
        for n, reward in zip(formed, verdicts, strict=True):
            if reward.verdict is Verdict.CORRECT:
                rows[left[n].id] = _row(left[n], texts[n]) | {"sample_id": asked[n].id}
    return [rows[group.prompt.id] for group in groups if group.prompt.id in rows]


def has_form(text: str, tags: Sequence[str]) -> bool:
    """Whether a text opens and closes these tags, one after the other."""
    pattern = ".*".join(f"<{re.escape(tag)}>.*</{re.escape(tag)}>" for tag in tags)
    return re.search(pattern, text, flags=re.DOTALL) is not None


def _asked(prompt: Prompt, number: int, cfg: Config) -> Prompt:
    *before, last = prompt.messages
    question = Message(role=last.role, content=cfg.instruction.replace("{}", last.content))
    return replace(prompt, id=f"{prompt.id}~template{number}", messages=(*before, question))


def _row(prompt: Prompt, text: str) -> dict[str, Json]:
    return {
        "prompt_id": prompt.id,
        "messages": prompt.chat,
        "completion": text,
        "gold": prompt.gold,
        "verdict": Verdict.CORRECT.value,
    }
