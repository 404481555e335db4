"""A conversation of several turns: what the assistant says is learnt, what it is told is not.

Rows hold `messages`, as OpenAI and TRL write them: objects with `role` and `content`, and whatever else the chat
template knows, such as `tool_calls`; or, as TRL has it too, lists of messages `prompt` and `completion`, of which only
the latter is learnt. Beside them `tools`, a list of schemas or its JSON. An assistant's turn with `weight: 0`, OpenAI's
mark, is read and not learnt. Arguments of tool calls that are JSON text, as OpenAI has them, reach the template as
objects, which is what templates expect. A task gives the prompts that have a worked solution, as its answer.

Which tokens are learnt: where the template marks them (`{% generation %}`), those; else each turn is what rendering
adds when the turn is appended to the messages before it and the opening of the assistant's turn. A template that writes
a turn otherwise once others follow it, as those that drop earlier reasoning do, is refused where such a turn is to be
learnt. A turn ends with the EOS token, if the template puts one there; what it puts behind that is not learnt. The last
turn has one in any case. Without marks every piece is tokenized by itself, as it will be when it is sampled.

Source of the formats: https://huggingface.co/docs/trl/dataset_formats and
https://platform.openai.com/docs/guides/supervised-fine-tuning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.training import Sample
from rlhf.core.types import Message, Prompt
from rlhf.data.render import check_tokenizer, eos_id

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TURNS = ("all", "last")
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
_Turn = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which turns are learnt."""

    turns: str = "all"
    """`all` that the assistant has, or its `last` one."""

    def __post_init__(self) -> None:
        if self.turns not in TURNS:
            raise ConfigError("turns", f"'{self.turns}' is not offered", fix=did_you_mean(self.turns, TURNS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages, with the places of those that may be learnt."""

    prompt: Prompt
    messages: tuple[_Turn, ...]
    learnt: tuple[int, ...]
    tools: tuple[Mapping[str, Any], ...] = ()


def read(row: Mapping[str, Any], cfg: Config, *, where: str, name: str) -> Conversation:
    """A row of `messages`, or of `prompt` and `completion`, and `tools`."""
    begin, rest = (row.get("prompt"), row.get("completion")) if "messages" not in row else ([], row["messages"])
    if not all(isinstance(part, list) and all(map(_is_message, part)) for part in (begin, rest)):
        fix = 'give every row `messages` [{"role": …, "content": …}, …]'
        raise DataError(where, f"is no conversation: it has the columns {', '.join(row)}", fix=fix)
    assert isinstance(begin, list) and isinstance(rest, list)
    try:
        messages = tuple(map(_for_template, (*begin, *rest)))
        tools = _decoded(row.get("tools") or [])
    except json.JSONDecodeError as error:
        fix = "write objects, or JSON of objects"
        raise DataError(where, f"has tools or arguments of a call that are no JSON: {error}", fix=fix) from error
    learnt = tuple(
        place
        for place, turn in enumerate((*begin, *rest))
        if place and turn["role"] == "assistant" and place >= len(begin) and turn.get("weight", 1)
    )
    if not learnt:
        fix = "give it a turn of the assistant behind another one, without `weight: 0`"
        raise DataError(where, "has no turn to learn", fix=fix)
    told = tuple(Message(role=t["role"], content=str(t.get("content") or "")) for t in messages[: learnt[0]])
    prompt = Prompt(id=name, messages=told, gold=str(row.get("gold", "")), task=name)
    return Conversation(prompt=prompt, messages=messages, learnt=learnt, tools=tuple(tools))


def given(prompt: Prompt, cfg: Config) -> Conversation | None:
    """The prompt with its worked solution as the assistant's turn, if it has one."""
    if prompt.solution is None:
        return None
    turns = prompt.chat
    messages = (*turns, {"role": "assistant", "content": prompt.solution})
    return Conversation(prompt=prompt, messages=messages, learnt=(len(turns),))


def render(example: Conversation, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """One sample, whose targets are the assistant's turns and their ends.

    Raises:
        DataError: the chat template refuses the messages, or its turns cannot be told apart.
    """
    check_tokenizer(tokenizer)
    learnt = example.learnt[-1:] if cfg.turns == "last" else example.learnt
    template = tokenizer.get_chat_template(tools=cast(Any, list(example.tools) or None))
    read = _by_marks if _MARKED.search(template) else _by_turns
    tokens, mask = _ended(*read(example, learnt, tokenizer), end=eos_id(tokenizer))
    start = mask.index(True)
    return [Sample(id=example.prompt.id, tokens=tokens, target_start=start, target_mask=mask[start:])]


def _by_turns(
    example: Conversation, learnt: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """Tokens and whether they are learnt, by rendering each turn with what comes before it."""
    whole = _text(example, learnt[-1] + 1, tokenizer)
    cuts = [0]
    for place in learnt:
        asked, answered = _text(example, place, tokenizer, opened=True), _text(example, place + 1, tokenizer)
        if not (whole.startswith(answered) and answered.startswith(asked) and len(answered) > len(asked)):
            fix = "set examples.turns: last, or give model.chat_template one that marks turns by {% generation %}"
            problem = f"the chat template writes turn {place + 1} otherwise when it is asked for or others follow"
            raise DataError(f"{tokenizer.name_or_path}, {example.prompt.id}", problem, fix=fix)
        cuts += [len(asked), len(answered)]
    tokens, mask = list[int](), list[bool]()
    for n, (start, stop) in enumerate(pairwise(cuts)):
        piece = tokenizer.encode(whole[start:stop], add_special_tokens=False)
        tokens += piece
        mask += [n % 2 == 1] * len(piece)
    return tokens, mask


def _by_marks(
    example: Conversation, learnt: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """Tokens and whether they are learnt, as the template marks them."""
    found = _applied(example, len(example.messages), tokenizer, return_dict=True, return_assistant_tokens_mask=True)
    tokens, marked = list(found["input_ids"]), [bool(mark) for mark in found["assistant_masks"]]
    said = [place for place, turn in enumerate(example.messages) if turn["role"] == "assistant"]
    runs, start = list[range](), 0
    for mark, run in groupby(marked):
        size = len(list(run))
        runs += [range(start, start + size)] if mark else []
        start += size
    if len(runs) != len(said):
        problem = f"the chat template marks {len(runs)} pieces of a conversation in which the assistant speaks"
        fix = "mend its {% generation %}, or leave it out to have turns told apart by rendering them one by one"
        raise DataError(f"{tokenizer.name_or_path}, {example.prompt.id}", f"{problem} {len(said)} times", fix=fix)
    kept = {t for place, run in zip(said, runs, strict=True) if place in learnt for t in run}
    return tokens, [t in kept for t in range(len(tokens))]


def _ended(tokens: list[int], mask: list[bool], *, end: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Every learnt turn up to its EOS, which is learnt too if it comes right behind; and nothing after the last."""
    starts = [t for t, learnt in enumerate(mask) if learnt and not (t and mask[t - 1])]
    stop = 0
    for start in starts:
        stop = next((t for t in range(start, len(mask)) if not mask[t]), len(mask))
        ends = [t for t in range(start, stop) if tokens[t] == end]
        if ends:
            mask[ends[-1] + 1 : stop] = [False] * (stop - ends[-1] - 1)
            stop = ends[-1] + 1
        elif tokens[stop : stop + 1] == [end]:
            mask[stop], stop = True, stop + 1
    tokens, mask = tokens[:stop], mask[:stop]
    last = [] if tokens[-1] == end else [end]
    return (*tokens, *last), (*mask, *(True for _ in last))


def _text(example: Conversation, count: int, tokenizer: PreTrainedTokenizerBase, *, opened: bool = False) -> str:
    """The first messages as the template writes them."""
    return str(_applied(example, count, tokenizer, tokenize=False, add_generation_prompt=opened))


def _applied(example: Conversation, count: int, tokenizer: PreTrainedTokenizerBase, **options: Any) -> Any:
    messages = cast("list[dict[str, str]]", [dict(turn) for turn in example.messages[:count]])
    try:
        return tokenizer.apply_chat_template(messages, tools=cast(Any, list(example.tools) or None), **options)
    except TemplateError as error:
        where, fix = f"{tokenizer.name_or_path}, {example.prompt.id}", "use the roles that it knows"
        raise DataError(where, f"the chat template refuses these messages: {error}", fix=fix) from error


def _for_template(turn: _Turn) -> _Turn:
    """A message without OpenAI's mark, and with arguments of tool calls as objects."""
    out = {key: value for key, value in turn.items() if key != "weight"}
    if turn.get("tool_calls"):
        out["tool_calls"] = [_with_object(call) for call in turn["tool_calls"]]
    return out


def _with_object(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    return {**call, "function": {**function, "arguments": _decoded(function["arguments"] or "{}")}}


def _decoded(value: Any) -> Any:
    """What a text holds as JSON; anything else as it is."""
    return json.loads(value) if isinstance(value, str) else value


def _is_message(turn: object) -> bool:
    """A role, and something that is said or called."""
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        return False
    return isinstance(turn.get("content"), str | list) or bool(turn.get("tool_calls"))
