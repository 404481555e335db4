r"""The math verifier against tables of accepted and rejected answers, by category; every bug adds a row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from math_tables import ACCEPTED, REJECTED

from rewards.math import Config, Spec, parse_gold, score, verify
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Message, Prompt, StopReason, Trajectory, Verdict

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is not beside this repository")


def cases(table: Mapping[str, Sequence[tuple[str, str]]]) -> list[Any]:
    return [
        pytest.param(prediction, gold, id=f"{category}: {prediction} | {gold}")
        for category, rows in table.items()
        for prediction, gold in rows
    ]


@pytest.mark.parametrize(("prediction", "gold"), cases(ACCEPTED))
def test_accepted(prediction: str, gold: str) -> None:
    out = verify(f"so it is \\boxed{{{prediction}}}.", gold)
    assert (out.value, out.verdict) == (1.0, Verdict.CORRECT), out
    assert out.reason.startswith("match/") and out.extracted == prediction


@pytest.mark.parametrize(("prediction", "gold"), cases(REJECTED))
def test_rejected(prediction: str, gold: str) -> None:
    out = verify(f"so it is \\boxed{{{prediction}}}.", gold)
    assert out.value == 0.0 and out.verdict is not Verdict.CORRECT, out
    assert not out.reason.startswith("match/")


@pytest.mark.parametrize(
    ("completion", "gold", "value", "verdict", "reason"),
    [
        (r"\boxed{8}", "7", 0.0, Verdict.WRONG, "mismatch"),
        (r"\boxed{x^2}", "7", 0.0, Verdict.WRONG, "mismatch"),
        (r"\boxed{x @ 2}", "7", 0.0, Verdict.UNPARSABLE, "unparsed/prediction"),
        (r"\boxed{x+1}", "x @ 2", 0.0, Verdict.WRONG, "mismatch/string"),
        (r"\boxed{55}", r"\sum_{i=1}^{10} i", 0.0, Verdict.WRONG, "mismatch/string"),
        (r"\boxed{7}}", "7", 1.0, Verdict.CORRECT, "match/string"),
        ("<answer>7}</answer>", "7", 0.0, Verdict.UNPARSABLE, "unparsed/prediction"),
        (r"\boxed{x+1}", "x^2", 0.0, Verdict.WRONG, "mismatch"),
        (r"\boxed{cat}", "x^2", 0.0, Verdict.WRONG, "mismatch"),
        (r"\boxed{7}", "", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{}", "", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{7}", r"\frac{7}", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{7}", "{7", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{1/0}", "1/0", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (r"\boxed{7}", r"\boxed{7", None, Verdict.UNPARSABLE, "unparsed/gold"),
        (rf"\boxed{{{'1' * 5000}}}", "7", 0.0, Verdict.UNPARSABLE, "limit/chars"),
        (rf"\boxed{{{'1' * 300}}}", "7", 0.0, Verdict.UNPARSABLE, "limit/magnitude"),
        (r"\boxed{1e400}", "7", 0.0, Verdict.UNPARSABLE, "limit/magnitude"),
        (r"\boxed{9^{9^9}}", "7", 0.0, Verdict.UNPARSABLE, "limit/magnitude"),
        (rf"\boxed{{{'1+' * 1500}1}}", "7", 0.0, Verdict.UNPARSABLE, "limit/tokens"),
        (rf"\boxed{{{'(' * 90}1{')' * 90}}}", "7", 0.0, Verdict.UNPARSABLE, "limit/depth"),
        (rf"\boxed{{{'1,' * 400}1}}", "7", 0.0, Verdict.UNPARSABLE, "limit/nodes"),
    ],
)
def test_verdicts(completion: str, gold: str, value: float | None, verdict: Verdict, reason: str) -> None:
    out = verify(completion, gold)
    assert (out.value, out.verdict, out.reason) == (value, verdict, reason)


@pytest.mark.parametrize(
    ("prediction", "gold", "reason"),
    [
        ("x+1", "x + 1", "match/string"), ("2/4", "1/2", "match/rational"), ("0.5", "1/2", "match/decimal"),
        ("50%", "0.5", "match/percent"), ("B)", "B", "match/choice"), ("ODD", "odd", "match/text"),
        ("2,1", "1,2", "match/structural"), ("2^3", "8", "match/numeric"),
    ],
)  # fmt: skip
def test_the_reason_names_the_layer(prediction: str, gold: str, reason: str) -> None:
    assert verify(f"\\boxed{{{prediction}}}", gold).reason == reason


def test_the_gold_may_be_a_whole_solution() -> None:
    assert verify("A: 1200", "so 2 * 600 = 1200\n#### 1,200").value == 1.0
    assert verify(r"\boxed{0.5}", r"hence $\boxed{\frac{1}{2}}$.").value == 1.0
    gold = parse_gold(r"\boxed{\frac{1}{2}}")
    assert gold is not None and gold.canonical == r"\frac{1}{2}"


def test_numbers_are_compared_the_same_both_ways() -> None:
    rows = [
        row
        for table in (ACCEPTED, REJECTED)
        for key in ("integer", "fraction", "value", "rounding")
        for row in table.get(key, [])
    ]
    for prediction, gold in rows:
        one, other = verify(f"\\boxed{{{prediction}}}", gold), verify(f"\\boxed{{{gold}}}", prediction)
        assert (one.value == 1.0) == (other.value == 1.0), (prediction, gold)


def test_options() -> None:
    assert verify(r"\boxed{x+1}", "x @ 2", spec=Spec(symbolic_mismatch="ungraded")).value is None
    assert verify(r"\boxed{x^2}", "x^2", spec=Spec(symbolic_mismatch="ungraded")).value == 1.0
    strict = Spec(percent="strict")
    assert verify(r"\boxed{33.5}", r"33.5\%", spec=strict).value == 0.0
    assert verify(r"\boxed{0.335}", r"33.5\%", spec=strict).value == 1.0
    assert verify(r"\boxed{33.5\%}", r"33.5\%", spec=strict).value == 1.0
    assert verify(r"\boxed{5 m}", "5 cm", spec=Spec(units="ignored")).value == 1.0
    assert verify(r"\boxed{5}", "5 cm", spec=Spec(units="required")).value == 0.0
    assert verify(r"\boxed{5 centimeters}", "5 cm", spec=Spec(units="required")).value == 1.0
    reduced = Spec(require_reduced=True)
    assert verify(r"\boxed{2/4}", "0.5", spec=reduced).value == 0.0
    assert verify(r"\boxed{1/2}", "0.5", spec=reduced).value == 1.0
    assert verify(r"\boxed{4/2}", "2", spec=reduced).value == 0.0
    literal = Spec(integer_gold_needs_literal=True)
    assert verify(r"\boxed{12 \times 13}", "156", spec=literal).reason == "mismatch"
    assert verify(r"\boxed{4/2}", "2", spec=literal).value == 0.0
    assert verify(r"\boxed{2.0}", "2", spec=literal).value == 1.0


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"markers": ["boxd"]}, "markers"), ({"markers": []}, "markers"),
        ({"symbolic_mismatch": "maybe"}, "symbolic_mismatch"),
        ({"percent": "never"}, "percent"), ({"units": "metric"}, "units"),
        ({"sympy_timeout_s": 0}, "sympy_timeout_s"), ({"weight": float("nan")}, "weight"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(settings: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        Config(**settings)


@dataclass(frozen=True)
class NoTools:
    """The exact layers ask for no worker."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        raise AssertionError("not expected")


def test_score_grades_a_group() -> None:
    prompt = Prompt(id="p", messages=(Message(role="user", content="3+4="),), gold="7", task="sums")
    first = Trajectory(
        id="0-0-p-0", prompt_id="p", index=0, prompt_tokens=(1,), tokens=(2,), logprobs=(-0.5,), text="#### 7",
        stop=StopReason.EOS, policy_version=0, seed=1,
    )  # fmt: skip
    group = Group(prompt=prompt, trajectories=(first, replace(first, index=1, text="#### 8")))
    outs = score(group, Config(), NoTools())
    assert [(out.value, out.extracted) for out in outs] == [(1.0, "7"), (0.0, "8")]


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


@needs_data
def test_labelled_gsm8k_samples_agree() -> None:
    labelled = rows("gsm8k_model_solutions.jsonl")
    agreed = 0
    for row in labelled:
        gold = row["reference_solution"].rpartition("A:")[2].strip()
        agreed += (verify(row["completion"], gold).value == 1.0) == row["is_correct"]
    assert agreed / len(labelled) >= 0.995


@needs_data
def test_every_gold_matches_itself() -> None:
    solutions = [row["answer"] for name in ("gsm8k_train", "gsm8k_test") for row in rows(f"{name}.jsonl")]
    solutions += [row["solution"] for row in rows("math_test.jsonl")]
    assert [solution for solution in solutions if verify(solution, solution).value != 1.0] == []


@needs_data
def test_no_false_positive_in_the_core_suite() -> None:
    accepted, judged = 0, 0
    for row in rows("verifier_cases_dev.jsonl"):
        if row["tier"] != "core":
            continue
        boxed = row["kind"] == "completion" or "\\boxed" in row["prediction"]
        out = verify(row["prediction"] if boxed else f"\\boxed{{{row['prediction']}}}", row["gold"])
        assert out.value != 1.0 or row["adjudicated"], row["id"]
        accepted += (out.value == 1.0) == row["adjudicated"]
        judged += 1
    assert accepted / judged >= 0.97
