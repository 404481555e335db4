"""Chat template to tokens: the seam between prompt and solution, and tokenizers that lack something."""

import pytest

from rlhf.core.errors import DataError
from rlhf.core.types import Message, Prompt
from rlhf.data import render
from rlhf.models import tokenizers


def prompt(content="3+5=", solution="3+5=8\n#### 8", role="user"):
    return Prompt(id="p-1", messages=(Message(role=role, content=content),), gold="8", task="sums", solution=solution)


@pytest.fixture
def tokenizer():
    made = tokenizers.train_char([])
    made.name_or_path = "models/char"
    return made


def test_a_prompt_ends_with_the_opening_of_the_answer(tokenizer):
    tokens = render.render_prompt(tokenizer, prompt())
    assert isinstance(tokens, tuple)
    assert tokenizer.decode(tokens) == "<|user|>3+5=<|assistant|>"
    assert len(tokens) == 6


def test_all_messages_are_rendered_in_order(tokenizer):
    turns = (("system", "Add."), ("user", "1+1="), ("assistant", "2"), ("user", "2+2="))
    many = Prompt(id="p", messages=tuple(Message(role=r, content=c) for r, c in turns), gold="4", task="sums")
    text = "<|system|>Add.<|user|>1+1=<|assistant|>2<|eos|><|user|>2+2=<|assistant|>"
    assert tokenizer.decode(render.render_prompt(tokenizer, many)) == text


def test_a_solution_follows_the_sampled_prompt_and_ends_with_eos(tokenizer):
    rendered = render.render_solution(tokenizer, prompt())
    assert rendered.tokens[: rendered.target_start] == render.render_prompt(tokenizer, prompt())
    assert tokenizer.decode(rendered.tokens[rendered.target_start :]) == "3+5=8\n#### 8<|eos|>"
    assert rendered.tokens[-1] == render.eos_id(tokenizer)


def test_no_token_spans_the_seam():
    tokenizer = tokenizers.train_bpe(["xy"] * 9, vocab_size=300)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    joint = tokenizer.encode("xy", add_special_tokens=False)
    x, y = (tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "xy")
    rendered = render.render_solution(tokenizer, prompt("x", "y"))
    assert len(joint) == 1
    assert rendered.tokens == (x, y, tokenizer.eos_token_id) and rendered.target_start == 1


def test_no_beginning_of_sequence_token_is_slipped_into_the_solution(tokenizer):
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    assert tokenizer.bos_token_id not in render.render_solution(tokenizer, prompt()).tokens


def test_the_plain_template_has_no_marks(tokenizer):
    tokenizer.chat_template = tokenizers.chat_template("plain")
    assert tokenizer.decode(render.render_prompt(tokenizer, prompt())) == "3+5=\n"


def test_a_missing_pad_token_is_harmless(tokenizer):
    expected = render.render_solution(tokenizer, prompt())
    tokenizer.pad_token = None
    assert tokenizer.pad_token_id is None
    render.check_tokenizer(tokenizer)
    assert render.render_solution(tokenizer, prompt()) == expected


def test_a_missing_eos_token_is_an_error_with_path_and_fix(tokenizer):
    tokenizer.eos_token = None
    for call in (lambda: render.check_tokenizer(tokenizer), lambda: render.render_solution(tokenizer, prompt())):
        with pytest.raises(DataError, match=r"^models/char: .*no EOS token.*\n.*fix: set eos_token"):
            call()


def test_a_missing_chat_template_is_an_error_with_path_and_fix(tokenizer):
    tokenizer.chat_template = None
    for call in (lambda: render.check_tokenizer(tokenizer), lambda: render.render_prompt(tokenizer, prompt())):
        with pytest.raises(DataError, match=r"^models/char: .*no chat template\n.*fix: set model\.chat_template"):
            call()


def test_a_template_that_refuses_the_messages_names_the_prompt(tokenizer):
    with pytest.raises(DataError, match=r"^models/char, prompt p-1: .*unknown role tool"):
        render.render_prompt(tokenizer, prompt(role="tool"))
    tokenizer.chat_template = "{% for %}"
    with pytest.raises(DataError, match=r"^models/char, prompt p-1: the chat template refuses"):
        render.render_prompt(tokenizer, prompt())


def test_a_prompt_without_tokens_is_an_error(tokenizer):
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(DataError, match="prompt p-1: the prompt has no tokens"):
        render.render_prompt(tokenizer, prompt(content=""))


def test_a_prompt_without_solution_is_an_error(tokenizer):
    with pytest.raises(DataError, match="prompt p-1: has no solution"):
        render.render_solution(tokenizer, prompt(solution=None))
