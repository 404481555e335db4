"""The report: what is printed, and what the exit code says."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from patient import H100, healthy, network, on_cluster, with_gpus
from rich.console import Console

from rlhf.core.errors import ConfigError
from rlhf.doctor import visit
from rlhf.doctor.findings import Facts, Finding, Level

ROOT = Path(__file__).parents[2]
SICK = healthy(network=network(loopback="no such device"))


def printed(findings: Mapping[str, Sequence[Finding]], width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    visit.show(findings, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def code(facts: Facts, monkeypatch: pytest.MonkeyPatch, config: Path | None = None, *overrides: str) -> int:
    monkeypatch.setattr(visit.look, "facts", lambda needs, *, folder: replace(facts, needs=needs))
    return visit.run(config, overrides, Console(file=io.StringIO()))


def test_every_check_has_a_title_of_its_own_and_each_finding_a_place() -> None:
    for facts in (on_cluster(), with_gpus(H100)):
        titles = [finding.title for found in visit.examine(facts).values() for finding in found]
        assert len(set(titles)) == len(titles)
        assert all(len(title) <= visit.INDENT - 5 for title in titles)


def test_what_is_wrong_stands_out_with_its_remedy_below() -> None:
    lines = printed({"network": visit.examine(SICK)["network"]})
    place = next(n for n, line in enumerate(lines) if "✗ loopback" in line)
    assert "no such device" in lines[place] and "→ bring it up: ip link set lo up" in lines[place + 1]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_report_fits_the_terminal(width: int) -> None:
    long = Finding(title="t", level=Level.WARNING, found="word " * 60 + "x" * 200, fix="remedy " * 40)
    lines = printed({"packages": [long]}, width)
    assert all(len(line) <= width for line in lines)
    assert sum(line.count("x") for line in lines) == 200, "a long path is broken, not cut"


def test_a_problem_makes_the_exit_code_1_and_a_warning_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code(healthy(), monkeypatch) == 0
    assert code(healthy(env={"OMP_NUM_THREADS": "99"}), monkeypatch) == 0
    assert code(SICK, monkeypatch) == 1


def test_a_config_is_what_turns_a_missing_package_into_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ROOT / "configs" / "quickstart.yaml"
    assert code(healthy(), monkeypatch, config) == 0
    assert code(healthy(), monkeypatch, config, "runtime.name=ray") == 1
    assert code(on_cluster(), monkeypatch, config, "runtime.name=ray") == 0


def test_the_doctor_itself_needs_nothing_that_may_be_broken() -> None:
    code = (
        "import sys, rlhf.cli, rlhf.doctor.visit; print(*({'torch', 'transformers', 'omegaconf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_config_with_an_error_is_refused_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        code(healthy(), monkeypatch, Path("nowhere.yaml"))


@pytest.mark.parametrize(
    ("levels", "config", "said"),
    [
        ((Level.OK, Level.NOTE), None, "nothing is broken for runs on this machine"),
        ((Level.WARNING,), None, "nothing is broken for runs on this machine (1 warning)"),
        ((Level.WARNING,) * 2, Path("a.yaml"), "nothing is broken for a.yaml (2 warnings); next: rlhf plan a.yaml"),
        (
            (Level.PROBLEM, Level.PROBLEM, Level.WARNING),
            Path("a.yaml"),
            "2 problems, 1 warning: mend the problems (✗) before a.yaml",
        ),
    ],
)
def test_the_last_line_sums_up(levels: Sequence[Level], config: Path | None, said: str) -> None:
    findings = {"s": [Finding(title="t", level=level, found="f") for level in levels]}
    assert visit.summary(findings, config) == said
