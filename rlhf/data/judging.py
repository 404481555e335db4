"""How a model is asked to judge an answer, and how its verdict is read.

Used where verdicts are sampled and rewarded (`rlhf.loops.verify`) and where their form is learnt first
(`rlhf.data.examples.judgements`), so that both speak of the same prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhf.core.errors import ConfigError
from rlhf.core.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACES = re.compile(r"\{(question|answer|right|wrong)\}")

TEMPLATE = """Below are a question and a response to it. Decide whether the response is correct.

### Question
{question}

### Response
{answer}

Briefly summarize your analysis, then end with one word: {right} or {wrong}."""


@dataclass(frozen=True, kw_only=True)
class Judging:
    """The form of a judgement."""

    template: str = TEMPLATE
    """What the model is asked; `{question}`, `{answer}`, `{right}` and `{wrong}` stand for the last message of the
    prompt, the text of the answer, and the two words."""
    right: str = "correct"
    """The word for a right answer."""
    wrong: str = "incorrect"
    """The word for a wrong one. Of the two, the one that stands last in a judgement as a whole word is its verdict."""

    def __post_init__(self) -> None:
        if "{answer}" not in self.template:
            raise ConfigError("template", "does not show the answer to be judged", fix="put {answer} into it")
        for name in ("right", "wrong"):
            if not vars(self)[name].strip():
                raise ConfigError(name, "is no word", fix="use correct and incorrect, or the like")
        if self.right.lower() == self.wrong.lower():
            raise ConfigError("wrong", f"'{self.wrong}' is the word for a right answer, too", fix="use another one")

    def word(self, right: bool) -> str:
        """The word for an answer."""
        return self.right if right else self.wrong

    def read(self, text: str) -> bool | None:
        """The verdict of a judgement: whether it calls the answer right; None where it says neither."""
        words = "|".join(re.escape(word) for word in (self.right, self.wrong))
        found = re.findall(rf"(?<!\w)(?:{words})(?!\w)", text, flags=re.IGNORECASE)
        return found[-1].lower() == self.right.lower() if found else None


def overhead(cfg: Judging, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that a prompt to judge has besides those of question and answer, give or take the seams."""
    return len(tokenizer.encode(_filled(cfg, question="", answer=""), add_special_tokens=False))


def judged(prompt: Prompt, answer: str, right: bool, cfg: Judging, *, name: str) -> Prompt:
    """The prompt that asks for a judgement of an answer to another prompt, whose earlier messages it keeps.

    Args:
        prompt: what was answered.
        answer: its text.
        right: the truth, which becomes gold and solution.
        name: id of the new prompt.
    """
    question = prompt.messages[-1]
    content = _filled(cfg, question=question.content, answer=answer)
    messages = (*prompt.messages[:-1], Message(role=question.role, content=content))
    word = cfg.word(right)
    return replace(prompt, id=name, messages=messages, gold=word, solution=word, columns={})


def _filled(cfg: Judging, **shown: str) -> str:
    """The template, in one pass: what is filled in is not looked at again."""
    told = shown | {"right": cfg.right, "wrong": cfg.wrong}
    return _PLACES.sub(lambda place: told[place[1]], cfg.template)
