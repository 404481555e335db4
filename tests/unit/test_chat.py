"""Conversations of several turns: which tokens are learnt, under templates of each kind, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt
from rlhf.data.examples import chat, solutions
from rlhf.data.examples.chat import Config
from rlhf.data.render import render_prompt
from rlhf.models import tokenizers

USER, SAID = {"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}
MORE, LATER = {"role": "user", "content": "+1="}, {"role": "assistant", "content": "3"}
SYSTEM = {"role": "system", "content": "add"}
TALK = {"messages": [SYSTEM, USER, SAID, MORE, LATER]}

CHATML = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% if m.role == 'assistant' %}<|eos|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Ends every turn, the assistant's with EOS, and puts a line break behind."""
MARKED = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}<|eos|>{% else %}{{ m.content }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and not loop.last %}{{ m.content[-1:] }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""Keeps the last character only of turns that others follow."""
TOOLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]"
    "{% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments.n }}){% endfor %}"
    "{{ m.content or '' }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tokenizer(template: str | None = None) -> Any:
    made = tokenizers.train_char([])
    made.chat_template = template or made.chat_template
    return made


def learnt(row: dict[str, Any], template: str | None = None, **keys: Any) -> str:
    """The text of the sample, with what is learnt in angle brackets."""
    made, cfg = tokenizer(template), Config(**keys)
    [sample] = chat.render(chat.read(row, cfg, where="x.jsonl, row 1", name="c-1"), cfg, made)
    mask = (False,) * sample.target_start + (sample.target_mask or ())
    assert len(mask) == len(sample.tokens) and sample.id == "c-1" and mask[sample.target_start]
    out, inside = "", False
    for token, is_learnt in zip(sample.tokens, mask, strict=True):
        out += ("«" if is_learnt else "»") if is_learnt is not inside else ""
        out, inside = out + made.decode([token]).replace("<|eos|>", "$"), is_learnt
    return out + ("»" if inside else "")


def test_the_assistant_s_turns_are_learnt_with_their_ends() -> None:
    want = "<|system|>add<|user|>1+1=<|assistant|>«2$»<|user|>+1=<|assistant|>«3$»"
    assert learnt(TALK) == want
    assert learnt(TALK, turns="last") == want.replace("«2$»", "2$")


def test_what_a_template_puts_behind_an_end_is_not_learnt() -> None:
    assert learnt(TALK, CHATML) == "[system]add\n[user]1+1=\n[assistant]«2$»\n[user]+1=\n[assistant]«3$»"


def test_a_template_without_ends_has_one_behind_the_last_turn() -> None:
    assert learnt(TALK, tokenizers.PLAIN) == "add\n1+1=\n«2\n»+1=\n«3\n$»"


def test_marks_of_a_template_are_followed_and_ends_right_behind_them_learnt() -> None:
    want = "[system]add[user]1+1=[assistant]«2$»[user]+1=[assistant]«3$»"
    assert learnt(TALK, MARKED) == want
    assert learnt(TALK, MARKED, turns="last") == want.replace("«2$»", "2$")


def test_a_turn_that_is_written_otherwise_later_is_refused_unless_it_is_the_last() -> None:
    row = {"messages": [USER, {"role": "assistant", "content": "so 2"}, MORE, LATER]}
    with pytest.raises(DataError, match=r"c-1: the chat template writes turn 2 otherwise.*\n.*turns: last"):
        learnt(row, FORGETFUL)
    assert learnt(row, FORGETFUL, turns="last") == "[user]1+1=[assistant]2[user]+1=[assistant]«3$»"


def test_what_follows_the_last_answer_falls_away() -> None:
    assert learnt({"messages": [USER, SAID, MORE]}) == "<|user|>1+1=<|assistant|>«2$»"


def test_a_turn_of_weight_0_is_read_and_not_learnt() -> None:
    row = {"messages": [USER, SAID | {"weight": 0}, MORE, LATER | {"weight": 1}]}
    want = "<|user|>1+1=<|assistant|>2$<|user|>+1=<|assistant|>«3$»"
    assert learnt(row) == want and learnt(row, MARKED).count("«") == 1


def test_of_prompt_and_completion_the_completion_is_learnt() -> None:
    row = {"prompt": [USER, SAID, MORE], "completion": [LATER]}
    assert learnt(row) == "<|user|>1+1=<|assistant|>2$<|user|>+1=<|assistant|>«3$»"


def test_tools_and_calls_reach_the_template_as_objects() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": json.dumps({"n": 5})}}
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "6"}]
    for tools in ([{"a": 1}], '[{"a": 1}]'):
        row = {"messages": [*messages, SAID], "tools": tools}
        assert learnt(row, TOOLS) == '[{"a": 1}][user]1+1=[assistant]«add(5)»[tool]6[assistant]«2$»'


def test_a_question_has_the_tokens_that_it_is_sampled_from() -> None:
    """And one turn is the same as the example of a question with a solution."""
    made, prompt = tokenizer(), Prompt(id="a", messages=(Message(role="user", content="1+1="),), gold="2", task="x")
    assert chat.given(prompt, Config()) is None
    solved = Prompt(id="a", messages=prompt.messages, gold="2", task="x", solution="2")
    example, plain = chat.given(solved, Config()), solutions.given(solved, solutions.Config())
    assert example is not None and plain is not None
    [ours], [theirs] = chat.render(example, Config(), made), solutions.render(plain, solutions.Config(), made)
    assert (ours.tokens, ours.target_start, set(ours.target_mask or ())) == (theirs.tokens, theirs.target_start, {True})
    assert ours.tokens[: ours.target_start] == render_prompt(made, prompt)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "1+1=2"}, "is no conversation: it has the columns text"),
        ({"messages": "1+1="}, "is no conversation"),
        ({"messages": [{"content": "1+1="}, SAID]}, "is no conversation"),
        ({"messages": [{"role": "user"}, SAID]}, "is no conversation"),
        ({"messages": [USER, MORE]}, "has no turn to learn"),
        ({"messages": [SAID, USER]}, "has no turn to learn"),
        ({"messages": [USER, SAID | {"weight": 0}]}, "has no turn to learn"),
        ({"messages": [USER, SAID], "tools": "{"}, "are no JSON"),
    ],
)
def test_a_row_that_cannot_be_learnt_from_is_named(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        chat.read(row, Config(), where="x.jsonl, row 7", name="c-7")
    assert caught.value.where == "x.jsonl, row 7"


def test_what_a_template_does_not_know_is_refused() -> None:
    with pytest.raises(DataError, match="refuses these messages: unknown role tool"):
        learnt({"messages": [USER, SAID, {"role": "tool", "content": "6"}, LATER]})
    odd = MARKED.replace("{% generation %}", "{% generation %}{% endgeneration %}-{% generation %}")
    with pytest.raises(DataError, match="the assistant speaks 2 times"):
        learnt(TALK, odd.replace("{% generation %}{% endgeneration %}", "{% generation %}x{% endgeneration %}"))
    with pytest.raises(ConfigError, match="turns"):
        Config(turns="first")
