"""Programs for the sandbox: those said to be right are, those said to be wrong are not; cheats are not run here."""

from __future__ import annotations

import pytest

from rlhf.core.errors import ConfigError
from rlhf.lab.corpora import programs


def answers(body: str) -> list[object]:
    names: dict[str, object] = {}
    exec(programs.FRAME.format(body=body), names)
    total = names["total"]
    assert callable(total)
    return [total(n) for n, _ in programs.PAIRS]


@pytest.mark.parametrize("name", programs.RIGHT)
def test_right_programs_solve_the_problem(name: str) -> None:
    assert answers(programs.RIGHT[name]) == [s for _, s in programs.PAIRS]


@pytest.mark.parametrize("name", programs.WRONG)
def test_wrong_programs_do_not(name: str) -> None:
    try:
        found = answers(programs.WRONG[name])
    except (ValueError, SyntaxError):
        return
    assert found != [s for _, s in programs.PAIRS]


def test_every_program_comes_with_every_kind_of_tests() -> None:
    found = list(programs.cases(programs.Config(), seed=0, canary="/nowhere"))
    size = len(programs.RIGHT | programs.WRONG | programs.CHEATS)
    assert len(found) == len({case.id for case in found}) == 3 * size
    assert any("/nowhere/touched" in case.completion for case in found)
    assert len(list(programs.cases(programs.Config(kinds=["asserted"]), seed=0, canary=""))) == size
    with pytest.raises(ConfigError, match="kinds: there is no 'asked'"):
        programs.Config(kinds=["asked"])
