"""Extraction: one marked candidate or none, whatever else a completion says."""

from __future__ import annotations

import pytest

from rewards.math import Spec, verify
from rewards.math.spec import MARKERS
from rlhf.core.types import Verdict

EXTRACTED: list[tuple[str, str]] = [
    (r"first \boxed{1} then \boxed{2}", "2"),
    (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\fbox{7}", "7"),
    (r"\boxed 7 is it", "7"),
    (r"\boxed{\boxed{7}}", "7"),
    (r"#### 3 but \boxed{7}", "7"),
    (r"\boxed{1}, \boxed{2} and \boxed{3}", "1, 2, 3"),
    (r"$\boxed{7}$ $\boxed{7}$", "7"),
    ("#### 10\nMore reasoning.\n#### 20", "20"),
    ("The answer is #### 42", "42"),
    ("#### $75.00 dollars", "$75.00 dollars"),
    ("#### 1 1/2", "1 1/2"),
    ("<answer>41</answer> <answer>42</answer>", "42"),
    ("The final answer is 5866608. I hope it is correct.", "5866608"),
    ("the answer is 3.14, roughly", "3.14, roughly"),
    ("ANSWER: 42,\n", "42,"),
    ("**Answer:** 42", "42"),
    ("Answer:\n\\[\n 9 \n\\]", "\\[\n 9 \n\\]"),
    ("Answer \\[ 9 \\] done", "\\[ 9 \\] done"),
    ("The answer is $5. He pays $3.", "$5"),
    ("It takes 2.\nA: 3", "3"),
    ("A: 3", "3"),
    ("<think>I think B</think>\nParis", "Paris"),
    ("$x + 1$", "$x + 1$"),
    ("a</think>b \\boxed{1}</think> \\boxed{2}", "2"),
]


@pytest.mark.parametrize(("completion", "candidate"), EXTRACTED)
def test_one_candidate_is_extracted(completion: str, candidate: str) -> None:
    assert verify(completion, "1").extracted == candidate


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "no_answer"),
        ("no numeric answer", "no_answer"),
        ("I think it is 7", "no_answer"),
        (r"\boxed{}", "no_answer"),
        (r"\boxed{ \, }", "no_answer"),
        ("#### ", "no_answer"),
        ("#### 1 2 3 4 5 6 7", "no_answer"),
        ("#### 7, 8", "no_answer"),
        ("#### 7 or 8", "no_answer"),
        ("A: 7 8", "no_answer"),
        (r"<think>\boxed{7}</think> I do not know.", "no_answer"),
        ("the answer is ", "no_answer"),
        (r"\boxed{7", "unterminated"),
        (r"\boxed{\frac{7}{1}", "unterminated"),
        (r"<think> maybe \boxed{7} or", "unterminated"),
        ("<answer>7", "unterminated"),
    ],
)
def test_without_one_marked_answer_the_verdict_is_no_answer(completion: str, reason: str) -> None:
    out = verify(completion, "7")
    assert (out.value, out.verdict, out.reason) == (0.0, Verdict.NO_ANSWER, reason)


def test_markers_decide_what_counts() -> None:
    only_boxes = Spec(markers=["boxed"])
    assert verify("#### 7", "7", spec=only_boxes).reason == "no_answer"
    assert verify(r"\boxed{7} #### 8", "7", spec=only_boxes).value == 1.0
    assert verify("the result is $7$ today", "7").reason == "no_answer"
    assert verify("$8$ minus one, so the result is $7$.", "7").value == 1.0
    assert verify("the result is 7", "7").reason == "no_answer"
    assert verify("6 plus one is 7, see?", "7", spec=Spec(markers=["number"])).value == 1.0
    assert verify("the result is $7$ and $8$", "8", spec=Spec(markers=list(MARKERS))).value == 1.0
