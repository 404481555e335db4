"""Answers compared by what they are: every kind by hand, the traps of the original evaluator, and F1."""

from __future__ import annotations

from typing import Any

import pytest

from rewards import base, structure
from rewards.structure import Config, postfix, verify
from rlhf.core.answers import Answer, Kind, read_gold, text, write_gold
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Prompt, Verdict

CORRECT, WRONG, UNPARSABLE = Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSABLE


def gold(kind: str, value: Any) -> str:
    return write_gold(Answer(Kind(kind), value))


@pytest.mark.parametrize(
    ("kind", "value", "answer", "verdict"),
    [
        ("ordered", ("b", "a", "c"), "b,a,c", CORRECT),
        ("ordered", ("b", "a", "c"), "a,b,c", WRONG),
        ("ordered", ("b", "a"), "b, a, c", WRONG),
        ("set", ("b", "a"), "a, b", CORRECT),
        ("set", ("b", "a"), "a,b,b", WRONG),
        ("set", ("b", "a"), "a", WRONG),
        ("set", (), "none", CORRECT),
        ("set", (), "None", CORRECT),
        ("set", ("a",), "none", WRONG),
        ("boolean", True, "Yes", CORRECT),
        ("boolean", False, "yes", WRONG),
        ("boolean", False, "false", CORRECT),
        ("boolean", False, "maybe", UNPARSABLE),
        ("number", "12.35", "12.35", CORRECT),
        ("number", "12.35", "12.36", CORRECT),
        ("number", "12.35", "12.361", WRONG),
        ("number", "12", "112", WRONG),
        ("number", "-3", "-3.0", CORRECT),
        ("number", "12", "twelve", UNPARSABLE),
        ("number", "12", "9" * 400, UNPARSABLE),
        ("number", "12", "1e1", UNPARSABLE),
        ("number", "12", "١٢", UNPARSABLE),
        ("edges", (("a", "b"), ("a", "c")), "a -> c, a>b", CORRECT),
        ("edges", (("a", "b"), ("a", "c")), "a>b", WRONG),
        ("edges", (("a", "b"), ("a", "c")), "a>b,a>c,a>c", WRONG),
        ("edges", (("a", "b"),), "b>a", WRONG),
        ("edges", (("a", "b", "L"),), "a -(L)-> b", CORRECT),
        ("edges", (("a", "b", "L"),), "a-(R)->b", WRONG),
        ("edges", (("a", "b", "L"),), "a>b", WRONG),
        ("edges", (), "No edges", CORRECT),
        ("edges", (("a", "b"),), "a and b", UNPARSABLE),
        ("tokens", ("+", "3", "4"), "+ 3 4", CORRECT),
        ("tokens", ("+", "3", "4"), "+ 4 3", WRONG),
        ("tokens", ("+", "3", "4"), "+ 3 4 !", UNPARSABLE),
        ("infix", ("3", "4", "5", "*", "+"), "3 + 4 * 5", CORRECT),
        ("infix", ("3", "4", "5", "*", "+"), "3+(4*5)", CORRECT),
        ("infix", ("3", "4", "5", "*", "+"), "(3+4)*5", WRONG),
        ("infix", ("3", "4", "+"), "3 + ", UNPARSABLE),
        ("text", "preorder", "preorder", CORRECT),
        ("text", "preorder", "preorder or inorder", WRONG),
    ],
)
def test_an_answer_is_compared_by_what_it_is(kind: str, value: Any, answer: str, verdict: Verdict) -> None:
    out = verify(f"some thought\n#### {answer}", gold(kind, value))
    assert (out.verdict, out.value) == (verdict, float(verdict is CORRECT))


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ('{"answer": ["b", "a"]}', 1.0),
        ('Let me see {x}.\n```json\n{"answer": "a, b"}\n```', 1.0),
        ('<think>#### c</think>{"answer": ["a", "b"]}', 1.0),
        ('{"answer": ["a", ["b"]]}', 0.0),
        ('{"answer": null}', 0.0),
        ('{"result": ["a", "b"]}', 0.0),
        ("#### a,b\nor not", 0.0),
        ("a,b", 0.0),
        ("####", 0.0),
    ],
)
def test_one_answer_is_read_from_a_line_or_from_json(completion: str, value: float) -> None:
    assert verify(completion, gold("set", ("a", "b"))).value == value


def test_json_may_hold_truth_values_and_numbers() -> None:
    assert verify('{"answer": true}', gold("boolean", True)).verdict is CORRECT
    assert verify('{"answer": false}', gold("boolean", True)).verdict is WRONG
    assert verify('{"answer": 12.35}', gold("number", "12.35")).verdict is CORRECT
    assert verify('{"answer": true}', gold("number", "1")).verdict is UNPARSABLE
    assert verify("{" * 3000 + "}", gold("number", "1")).verdict is Verdict.NO_ANSWER


def test_brackets_and_precedence_of_formulas() -> None:
    assert postfix("2 ^ 3 ^ 2") == ("2", "3", "2", "^", "^")
    assert postfix("8 - 3 - 2") == ("8", "3", "-", "2", "-")
    assert postfix("(1.5 + x) * 2") == ("1.5", "x", "+", "2", "*")
    for broken in ("", "3 4", "(3", "3)", "3 +", "+ 3", "()", "3 $ 4"):
        assert postfix(broken) is None, broken


def test_what_is_too_long_or_no_gold_is_not_compared() -> None:
    assert verify("x" * 30_000 + "\n#### 1", gold("number", "1")).reason == "limit/chars"
    for broken in ("7", "{", '{"kind": "heap", "answer": 1}', '{"kind": "set", "answer": "a"}', "[" * 9000):
        out = verify("#### 1", broken)
        assert (out.value, out.reason) == (None, "unparsed/gold")
        with pytest.raises(DataError):
            read_gold(broken)


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        (Answer(Kind.EDGES, (("a", "b"), ("b", "c", "L"))), "a>b,b-(L)->c"),
        (Answer(Kind.EDGES, ()), "none"),
        (Answer(Kind.SET, ("b", "c")), "b,c"),
        (Answer(Kind.ORDERED, ()), "none"),
        (Answer(Kind.BOOLEAN, False), "no"),
        (Answer(Kind.TOKENS, ("+", "3", "4")), "+ 3 4"),
        (Answer(Kind.NUMBER, "12.5"), "12.5"),
    ],
)
def test_a_gold_reads_back_and_its_own_text_is_right(answer: Answer, written: str) -> None:
    assert read_gold(write_gold(answer)) == answer
    assert text(answer) == written
    assert verify(f"#### {written}", write_gold(answer)).verdict is CORRECT


def test_f1_counts_what_cannot_be_read_as_no() -> None:
    said = [("yes", True), ("yes", True), ("no", True), ("yes", False), ("no", False), ("perhaps", True)]
    outs = [verify(f"#### {answer}", gold("boolean", wanted)) for answer, wanted in said]
    assert structure.f1(outs) == pytest.approx(2 * 2 / (3 + 4))
    other = verify("#### a", gold("text", "a"))
    assert other.breakdown == {} and structure.f1([*outs, other]) == structure.f1(outs)
    with pytest.raises(ValueError, match="no yes"):
        structure.f1([verify("#### no", gold("boolean", False))])


def test_a_group_is_graded_against_its_gold() -> None:
    prompt = Prompt(id="p", messages=(), gold=gold("number", "3"), task="t")
    [out] = structure.score(base.answered(prompt, "#### 3.005"), Config(tolerance=0.001), None)  # type: ignore[arg-type]
    assert out.verdict is WRONG
    for wrong, where in (({"tolerance": -1}, "tolerance"), ({"max_chars": 0}, "max_chars")):
        with pytest.raises(ConfigError) as caught:
            Config(**wrong)  # type: ignore[arg-type]
        assert caught.value.where == where
