"""What holds of every generated corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rewards.math import verify
from rlhf.lab.cases import Case


def check(cases: Callable[[], Iterable[Case]], *, labels: set[bool | None]) -> list[Case]:
    """Fixed by its seed, with ids and labels, and graded by the math verifier as labelled. Returns the cases."""
    found = list(cases())
    assert found == list(cases())
    assert len({case.id for case in found}) == len(found)
    assert {case.label for case in found} == labels
    wrong = [case for case in found if not _agrees(case)]
    assert not wrong, [(case.id, case.gold, case.completion[:200]) for case in wrong]
    return found


def _agrees(case: Case) -> bool:
    value = verify(case.completion, case.gold).value
    return value is not None and case.label in (None, value == 1.0)
