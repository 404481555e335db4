"""An audit counts what a grader gets wrong, and says whether its limits hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import RewardOut, Verdict
from rlhf.lab import audit, audit_page
from rlhf.lab.audit import Graded, Tally
from rlhf.lab.cases import Case


def graded(label: bool | None, value: float | None, verdict: Verdict) -> Graded:
    case = Case(id="c", completion="x", gold="7", label=label, category="k")
    return Graded(case=case, out=RewardOut(value=value, verdict=verdict), seconds=0.001)


@pytest.mark.parametrize(
    ("label", "value", "verdict", "fault"),
    [
        (True, 1.0, Verdict.CORRECT, ""),
        (False, 0.0, Verdict.WRONG, ""),
        (False, 0.0, Verdict.NO_ANSWER, ""),
        (None, 1.0, Verdict.CORRECT, ""),
        (None, 0.0, Verdict.UNPARSABLE, ""),
        (True, 0.0, Verdict.NO_ANSWER, "false negative"),
        (False, 0.5, Verdict.CORRECT, "false positive"),
        (False, None, Verdict.TIMEOUT, "not graded"),
        (None, None, Verdict.CRASH, "not graded"),
    ],
)
def test_faults(label: bool | None, value: float | None, verdict: Verdict, fault: str) -> None:
    assert graded(label, value, verdict).fault == fault


def test_agreement_is_over_labelled_answers() -> None:
    right, wrong = graded(True, 1.0, Verdict.CORRECT), graded(True, 0.0, Verdict.WRONG)
    free = graded(None, 0.0, Verdict.WRONG)
    assert Tally(graded=[right, wrong, right, right, free]).agreement == 0.75
    assert Tally(graded=[free]).agreement == 1.0
    assert Tally(graded=[right, graded(False, None, Verdict.CRASH)]).agreement == 0.5


def rows(folder: Path, *rows: dict[str, object]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def spec(folder: Path, corpus: str, more: str = "") -> Path:
    path = folder / "audit.yaml"
    path.write_text(f"title: T\ncorpora:\n  one:\n    corpus: {corpus}\n{more}", encoding="utf-8")
    return path


RIGHT = {"completion": "\\boxed{7}", "gold": "7", "label": True, "category": "a"}
WRONGLY = {"completion": "\\boxed{7}", "gold": "8", "label": True, "category": "b"}


def test_limits_decide(tmp_path: Path) -> None:
    corpus = f"{{name: file, path: {rows(tmp_path, RIGHT, RIGHT, RIGHT, WRONGLY)}}}"
    found = audit.audit(spec(tmp_path, corpus, "    min_agreement: 0.7\n"))
    assert found.holds and found.findings[0].own.agreement == 0.75
    for limit in ("min_agreement: 0.8", "max_false_negatives: 0", "max_milliseconds: 1.0e-9"):
        assert not audit.audit(spec(tmp_path, corpus, f"    {limit}\n")).holds
    assert audit.audit(spec(tmp_path, corpus, "    min_agreement: 0.8\n"), ["corpora.one.min_agreement=0.7"]).holds


def test_a_second_grader_stands_beside_and_the_page_shows_where_they_part(tmp_path: Path) -> None:
    corpus = f"{{name: file, path: {rows(tmp_path, RIGHT, WRONGLY)}}}"
    strict = "    beside: {strict: {name: math, markers: ['####']}}\n"
    found = audit.audit(spec(tmp_path, corpus, strict))
    [finding] = found.findings
    assert [t.count("false negative") for t in finding.tallies.values()] == [1, 2]
    audit_page.write(found, tmp_path / "page.html", command="rlhf audit")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "one: disagreements" in page and "Graded as labelled, and otherwise by strict." in page
    figures = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    assert figures["corpora"]["one"]["graders"]["math"]["categories"]["b"]["false_negatives"] == 1


def test_code_that_runs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grader that executes what a model wrote, as some have."""
    (tmp_path / "graders").mkdir()
    (tmp_path / "graders" / "gullible.py").write_text(
        "import contextlib\nfrom rewards import base\nfrom rlhf.core.types import RewardOut, Verdict\n"
        "from dataclasses import dataclass\n\n@dataclass(frozen=True, kw_only=True)\n"
        "class Config(base.RewardConfig): pass\n\n"
        "def score(group, cfg, tools):\n    with contextlib.suppress(Exception):\n"
        "        text = group.trajectories[0].text.removeprefix('\\\\boxed{').removesuffix('}')\n"
        "        if 'touched' in text: eval(text)  # a tower of powers would never end\n"
        "    return [RewardOut(value=0.0, verdict=Verdict.WRONG)]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    [finding] = audit.audit(spec(tmp_path, "{name: hostile, size: 1000}", "    reward: graders.gullible\n")).findings
    assert finding.left and not finding.holds
    assert [limit.name for limit in finding.limits if not limit.holds] == ["code run"]


def test_what_is_wrong_with_a_file_is_named(tmp_path: Path) -> None:
    corpus = f"{{name: file, path: {rows(tmp_path, {'completion': 'x', 'gold': '7', 'label': 'yes'})}}}"
    with pytest.raises(DataError, match="row 1: its label is 'yes'"):
        audit.audit(spec(tmp_path, corpus))
    with pytest.raises(ConfigError, match=r"corpora\.one\.corpus\.name: there is no 'rewites'"):
        audit.read(spec(tmp_path, "rewites"))
    with pytest.raises(ConfigError, match=r"corpora\.one\.min_agreement: 97"):
        audit.read(spec(tmp_path, "rewrites", "    min_agreement: 97\n"))
    nothing = f"{{name: file, path: {rows(tmp_path, RIGHT)}, where: {{category: z}}}}"
    with pytest.raises(ConfigError, match=r"corpora\.one: no case is left"):
        audit.audit(spec(tmp_path, nothing))
