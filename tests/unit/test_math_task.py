"""MATH rows to prompts: the last box, escaped braces, and messages for rows without one."""

from pathlib import Path

import pytest

from rlhf.core.errors import DataError
from rlhf.core.types import RewardOut, Verdict
from rlhf.data import sources
from rlhf.tasks import common, math

SHARED = Path(__file__).parents[3] / "shared" / "data"


def build(*rows, **cfg):
    config = math.Config(train="train.parquet", test="test.parquet", **cfg)
    return math.build(config, seed=0, rows=lambda source, *, split, subset, where: list(rows))


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"so $x=\boxed{5}$.", "5"),
        (r"\boxed{1} and then \boxed{ 2 }", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\left\{1,2\right\}}", r"\left\{1,2\right\}"),
        (r"\boxed{\{x : x > 0}", r"\{x : x > 0"),
        (r"\fbox{7}", "7"),
        (r"$\boxed 5$", "5"),
        (r"$\boxed12.$", "12"),
        (r"\boxed {8}", "8"),
        (r"\boxed{}", ""),
        (r"\boxed{1} then \boxed{2", None),
        (r"\boxed{a\\}", r"a\\"),
        (r"\boxedsep{3}", None),
        (r"\boxed", None),
        ("no box", None),
    ],
)
def test_the_last_box_is_read(text, gold):
    assert math.last_boxed(text) == gold


def test_a_long_unclosed_box_is_read_in_one_pass():
    assert math.last_boxed(r"\boxed{" + "{" * 200_000) is None


def test_a_row_becomes_a_prompt():
    row = {"problem": "Find $x$.\n", "solution": "It is $\\boxed{3}$.", "level": "Level 2", "type": "Algebra"}
    (prompt,) = build(row).train()
    assert prompt.messages[0].content == "Find $x$.\nPut your final answer within \\boxed{}."
    assert (prompt.id, prompt.gold, prompt.task) == ("math-train-1", "3", "math")
    assert prompt.solution == "It is $\\boxed{3}$."
    assert prompt.columns == {"level": "Level 2", "type": "Algebra"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"problem": "p", "solution": "It is 4."},
            r"column 'solution' holds no closed, non-empty \\boxed\{\}\n.*fix: box",
        ),
        ({"problem": "p", "solution": r"\boxed{4"}, r"column 'solution' holds no closed"),
        ({"problem": "p", "solution": r"\boxed{ }"}, r"column 'solution' holds no closed"),
        ({"problem": "p"}, r"has no column 'solution'\n.*task\.answer_field"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_its_file(bad, message):
    with pytest.raises(DataError, match=r"^train\.parquet, row 1: " + message):
        build(bad)


def test_validation_hands_the_worked_solution_to_the_verifier():
    good = {"problem": "p", "solution": r"\boxed{\frac12}"}
    bad = {"problem": "q", "solution": r"\boxed{\text{see above}}"}

    def verify(completion, gold):
        assert math.last_boxed(completion) == gold
        verdict = Verdict.UNPARSABLE if "see" in gold else Verdict.CORRECT
        return RewardOut(value=None, verdict=verdict, reason="toy")

    report = common.validate(build(good, bad).train(), verify)
    assert [r.prompt_id for r in report.refused] == ["math-train-2"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not here")
def test_the_real_rows_all_have_a_box():
    config = math.Config(train=str(SHARED / "math_test.jsonl"), test=None, held_out_share=0.2)
    task = math.build(config, seed=0, rows=sources.rows)
    assert (len(task.train()), len(task.held_out())) == (400, 100)
    assert all(p.gold.count("{") == p.gold.count("}") for p in task.train())
