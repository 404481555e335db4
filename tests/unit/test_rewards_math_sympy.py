"""The optional sympy layer: it decides formulas, only when asked, and a lost worker leaves the sample ungraded."""

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
        (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2", 1.0, "match/symbolic"),
        (r"\frac{x}{7}+\frac{2}{7}", r"\frac{x+2}{7}", 1.0, "match/symbolic"),
        ("2x+1+x^2", "(x+1)^2", 1.0, "match/symbolic"),
        (r"2\cos a \sin b", r"2 \sin b \cos a", 1.0, "match/symbolic"),
        ("1.4142135623", r"\sqrt{2}", 1.0, "match/symbolic"),
        ("1.41", r"\sqrt{2}", 0.0, "mismatch"),
        ("x^3+2x+1", "x^2+2x+1", 0.0, "mismatch"),
        (r"1 + \frac{1}{e}", r"1 - \frac{1}{e}", 0.0, "mismatch"),
        ("x<3", "x^2", 0.0, "mismatch/string"),
        ("(x+1)^{99999999}", "x+1", 0.0, "mismatch/string"),
    ],
)
def test_sympy_decides_formulas_when_it_is_asked(
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
    out = verify(r"\boxed{x+1}", "x^2", spec=spec, tools=FailingTools(TimeoutError()))
    assert (out.value, out.verdict, out.reason) == (None, Verdict.TIMEOUT, "timeout/sympy")
    out = verify(r"\boxed{x+1}", "x^2", spec=spec, tools=FailingTools(WorkerError("died", "exit code 1")))
    assert (out.value, out.verdict, out.reason) == (None, Verdict.CRASH, "crash/sympy_died")
    exact = FailingTools(TimeoutError())
    assert verify(r"\boxed{8}", "7", spec=spec, tools=exact).reason == "mismatch" and exact.asked == []
    with pytest.raises(ConfigError, match="needs worker processes"):
        verify(r"\boxed{7}", "7", spec=spec)
