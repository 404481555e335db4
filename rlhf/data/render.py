"""Chat template to token ids: the only place that turns training text into tokens.

Called by the loops, once per prompt. The prompt is rendered and tokenized on its own, and the solution's tokens are put
behind it, so a supervised example starts with exactly the tokens that the same prompt has when it is sampled from;
tokenizing both together could merge characters across the seam. A target ends with the EOS token that stops a sampler.
Sequences are packed, never padded: a tokenizer needs no pad token, but it does need an EOS token and a chat template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from jinja2 import TemplateError

from rlhf.core.errors import DataError
from rlhf.core.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A supervised example. Example: `Rendered(tokens=(3, 24, 17, 4, 30, 1), target_start=4)`."""

    tokens: tuple[int, ...]
    """Prompt, solution, EOS."""
    target_start: int
    """Where the solution begins; everything before it is the prompt."""


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that cannot render: to be called once, before anything expensive starts.

    Raises:
        DataError: it has no chat template or no EOS token; names its folder and the fix.
    """
    if not tokenizer.chat_template:
        raise DataError(
            tokenizer.name_or_path,
            "the tokenizer has no chat template",
            fix="set model.chat_template to `plain` (a base model), to a .jinja file, or to the template itself",
        )
    eos_id(tokenizer)


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the token that ends an answer.

    Raises:
        DataError: the tokenizer has none.
    """
    found = tokenizer.eos_token_id
    if found is None:
        raise DataError(
            tokenizer.name_or_path,
            "the tokenizer has no EOS token, so that no answer could ever end",
            fix="set eos_token in its tokenizer_config.json to the token that ends a turn",
        )
    assert isinstance(found, int)
    return found


def render_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> tuple[int, ...]:
    """Token ids that a sampler continues: all messages, then the opening of the assistant's turn.

    Raises:
        DataError: no chat template, a template that refuses these messages, or a prompt without tokens.
    """
    check_tokenizer(tokenizer)
    messages = prompt.chat
    try:
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    except TemplateError as error:
        raise DataError(
            f"{tokenizer.name_or_path}, prompt {prompt.id}",
            f"the chat template refuses these messages: {error}",
            fix="use the roles that it knows, or set model.chat_template",
        ) from error
    tokens = cast("list[int]", rendered)
    if not tokens:
        raise DataError(
            f"{tokenizer.name_or_path}, prompt {prompt.id}",
            "the prompt has no tokens, so that nothing precedes the first answer token",
            fix="mend the row, or use a chat template that marks the turns",
        )
    return tuple(tokens)


def render_solution(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> Rendered:
    """A supervised example: the prompt as sampled from, then its solution and EOS.

    Raises:
        DataError: the prompt has no solution, or `render_prompt` fails.
    """
    if prompt.solution is None:
        raise DataError(
            f"prompt {prompt.id}", "has no solution to learn from", fix="use a task or dataset with worked solutions"
        )
    before = render_prompt(tokenizer, prompt)
    target = tokenizer.encode(prompt.solution, add_special_tokens=False)
    return Rendered(tokens=(*before, *target, eos_id(tokenizer)), target_start=len(before))
