"""The format reward: marks in order, each once, with text between them."""

from __future__ import annotations

import time

import pytest
from shaping import NoTools, answers

from rewards.format import Config, score
from rlhf.core.errors import ConfigError

WHOLE = "<think>one and one</think>\n<answer>2</answer>"


def values(*texts: str, template: str | None = None) -> list[float | None]:
    cfg = Config() if template is None else Config(template=template)
    return [out.value for out in score(answers(texts), cfg, NoTools())]


@pytest.mark.parametrize(
    "text",
    [WHOLE, f"  {WHOLE}\n", WHOLE.replace("\n", " so "), WHOLE.replace("\n", ""), WHOLE.replace("one", "<b>")],
)
def test_what_has_the_form(text: str) -> None:
    assert values(text) == [1.0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2",
        f"well: {WHOLE}",
        f"{WHOLE} done",
        f"{WHOLE}{WHOLE}",
        WHOLE.replace("one and one", " \n"),
        WHOLE.replace("2", ""),
        WHOLE.replace("</think>", ""),
        WHOLE.replace("<think>", "<think><think>"),
        "<answer>2</answer><think>one</think>",
        WHOLE.upper(),
    ],
)
def test_what_has_not(text: str) -> None:
    assert values(text) == [0.0]


def test_a_part_of_the_form_is_measured() -> None:
    cut = "<think>one and one</think> 2"
    [out] = score(answers([cut]), Config(), NoTools())
    assert out.value == 0.0 and out.breakdown["share"] == 0.5


def test_other_templates() -> None:
    assert values("so\n#### 2", "#### 2", "so\n####", template="{}####{}") == [1.0, 0.0, 0.0]
    assert values("#### 2", "so #### 2", template="{*}####{}") == [1.0, 1.0]
    assert values("A: B", template="A:{}") == [1.0]


def test_a_hostile_answer_takes_linear_time() -> None:
    start = time.process_time()
    assert values("<think>" + "<think" * 400_000, "</think>" * 300_000, "<" * 2_000_000) == [0.0] * 3
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("template", ["", "{}", "{}{}", "<a>{}<a>", "<a>{} {*}<b>", "<a>{}<a>b"])
def test_templates_that_say_nothing_are_refused(template: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(template=template)
    assert caught.value.where == "template"
