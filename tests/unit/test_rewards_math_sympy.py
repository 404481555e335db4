"""The sympy layer: calculates sums and integrals, only when asked; a lost worker leaves the sample ungraded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from rewards.base import WorkerError
from rewards.math import Spec, verify
from rewards.pool import WorkerPool
from rlhf.core.errors import ConfigError
from rlhf.core.types import Verdict


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    with WorkerPool() as opened:
        yield opened


@pytest.mark.parametrize(
    ("prediction", "gold", "value", "reason"),
    [
        ("55", r"\sum_{i=1}^{10} i", 1.0, "match/symbolic"),
        ("54", r"\sum_{i=1}^{10} i", 0.0, "mismatch"),
        (r"\frac{n(n+1)}{2}", r"\sum_{k=1}^{n} k", 1.0, "match/symbolic"),
        (r"\frac{1}{2}", r"\int_0^1 x \, dx", 1.0, "match/symbolic"),
        ("0.3333333", r"\int_0^1 x^2 \, dx", 1.0, "match/symbolic"),
        ("0.33", r"\int_0^1 x^2 \, dx", 0.0, "mismatch"),
        (r"\frac{x^2}{2}", r"\int x \, dx", 1.0, "match/symbolic"),
        ("24", r"\prod_{i=1}^{4} i", 1.0, "match/symbolic"),
        ("x<3", r"\int x \, dx", 0.0, "mismatch/string"),
        (r"\lim_{x \to 0} x", r"\int x \, dx", 0.0, "mismatch/string"),
    ],
)
def test_sympy_calculates_sums_and_integrals_when_it_is_asked(
    pool: WorkerPool, prediction: str, gold: str, value: float, reason: str
) -> None:
    out = verify(f"\\boxed{{{prediction}}}", gold, spec=Spec(sympy=True), tools=pool)
    assert (out.value, out.reason) == (value, reason)


@dataclass
class FailingTools:
    """A pool whose worker never answers."""

    error: Exception
    asked: list[str] = field(default_factory=list[str])

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        self.asked.append(target)
        raise self.error


def test_a_question_that_kills_the_worker_leaves_the_sample_ungraded() -> None:
    spec = Spec(sympy=True)
    out = verify(r"\boxed{x+1}", r"\int x^2 dx", spec=spec, tools=FailingTools(TimeoutError()))
    assert (out.value, out.verdict, out.reason) == (None, Verdict.TIMEOUT, "timeout/sympy")
    out = verify(r"\boxed{x+1}", r"\int x^2 dx", spec=spec, tools=FailingTools(WorkerError("died", "exit code 1")))
    assert (out.value, out.verdict, out.reason) == (None, Verdict.CRASH, "crash/sympy_died")
    exact = FailingTools(TimeoutError())
    assert verify(r"\boxed{8}", "7", spec=spec, tools=exact).reason == "mismatch" and exact.asked == []
    with pytest.raises(ConfigError, match="needs worker processes"):
        verify(r"\boxed{7}", "7", spec=spec)
