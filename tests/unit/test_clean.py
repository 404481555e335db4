"""`rlhf clean`: what is kept, what is said of what is not, and every way in which it can be refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.data.care.duplicates import DuplicatesConfig
from rlhf.loops import clean
from rlhf.loops.clean import CleanConfig

CONFIGS = Path(__file__).parents[2] / "configs" / "care"
QUESTION = "A baker has 12 trays of 8 rolls each and sells 70 of them. How many rolls are left over?"
OTHER = "There are 30 children in a bus. At the first stop 4 get off. How many are there now in all?"


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    chat = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": f"Try this: {QUESTION.lower()}"}]
    data = [{"question": "naïve 1+1?", "answer": "2"}, {"messages": chat}, {"question": "And 2+2?", "answer": "4"}]
    return {
        "data": [write(tmp_path / "train.jsonl", data)],
        "against": [write(tmp_path / "test.jsonl", [{"question": QUESTION}, {"question": OTHER}])],
        "out": str(tmp_path / "new" / "clean"),
    }


def test_rows_with_an_evaluation_question_are_left_out_and_accounted_for(settings: dict[str, Any]) -> None:
    found = clean.clean(CleanConfig(**settings))
    source, test = Path(settings["data"][0]), settings["against"][0]
    assert lines(found.folder / "train.jsonl") == [lines(source)[0], lines(source)[2]]
    assert {path.name for path in found.folder.iterdir()} == {"train.jsonl", "removed.jsonl", "report.json"}
    assert not list(found.folder.parent.glob(".*"))
    [removed] = lines(found.folder / "removed.jsonl")
    words = removed.pop("words")
    expected = {"source": str(source), "row": 2, "why": "overlap", "against": test, "name": "row 1", "share": 1.0}
    assert removed == expected
    assert words.startswith("a baker has 12 trays")
    report = json.loads((found.folder / "report.json").read_text())
    assert report["against"][test]["texts"] == 2 and report["against"][test]["found"] == 1
    counts = report["data"][str(source)]
    assert (counts["rows"], counts["kept"], counts["removed"]) == (3, 2, {"overlap": 1})
    for path, said in ((source, "content"), (found.folder / "train.jsonl", "written_content")):
        assert counts[said] == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_columns_say_where_to_look(settings: dict[str, Any], tmp_path: Path) -> None:
    data = write(
        tmp_path / "train.jsonl", [{"question": "?", "source": QUESTION}, {"question": QUESTION, "source": ""}]
    )
    found = clean.clean(CleanConfig(**settings | {"data": [data], "columns": ["question"]}))
    assert [row["question"] for row in lines(found.folder / "train.jsonl")] == ["?"]
    with pytest.raises(
        DataError, match=r"train\.jsonl, row 1: has no column 'problem'\n  fix: .*valid: question, source"
    ):
        clean.clean(CleanConfig(**settings | {"data": [data], "columns": ["problem"], "out": "x"}))
    with pytest.raises(DataError, match=r"none.jsonl, row 1: has none of the usual columns.*\n  fix: .*asked"):
        none = write(tmp_path / "none.jsonl", [{"q": QUESTION}])
        clean.clean(CleanConfig(**settings | {"against": [none], "out": "x"}))


def test_repetitions_are_left_out_over_all_sources_and_accounted_for(settings: dict[str, Any], tmp_path: Path) -> None:
    long = " ".join(f"word{n}" for n in range(100))
    one = write(tmp_path / "one.jsonl", [{"q": long}, {"q": QUESTION}, {"q": "5"}, {"q": long.upper()}])
    two = write(tmp_path / "two.jsonl", [{"q": "5 "}, {"q": "6"}, {"q": f"{long} word100"}])
    changes = {"data": [one, two], "duplicates": DuplicatesConfig(find="near")}
    found = clean.clean(CleanConfig(**settings | changes))
    assert [lines(found.folder / name) for name in ("one.jsonl", "two.jsonl")] == [
        [{"q": long}, {"q": "5"}],
        [{"q": "6"}],
    ]
    assert [dict(each.removed) for each in found.data] == [{"overlap": 1, "duplicate": 1}, {"duplicate": 2}]
    why = [(r["source"], r["row"], r.get("of"), r.get("of_row")) for r in lines(found.folder / "removed.jsonl")]
    assert why == [(one, 2, None, None), (one, 4, one, 1), (two, 1, one, 3), (two, 3, one, 1)]
    alone = clean.clean(CleanConfig(**settings | changes | {"against": [], "out": str(tmp_path / "alone")}))
    assert [each.kept for each in alone.data] == [3, 1] and not alone.against


def test_a_broken_row_leaves_nothing_behind(settings: dict[str, Any]) -> None:
    with Path(settings["data"][0]).open("a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError, match=r"train\.jsonl, line 4: is not JSON"):
        clean.clean(CleanConfig(**settings))
    assert list(Path(settings["out"]).parent.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"data": []}, "data: is required"),
        ({"against": []}, "against: is required, or there is nothing to look for"),
        ({"out": ""}, "out: is required"),
        ({"data": ["a/x.jsonl", "b/x.parquet"]}, "data: two of them would be written to x.jsonl"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{problem}\n  fix: "):
        CleanConfig(**settings | change)


def test_a_folder_that_is_there_is_refused(settings: dict[str, Any]) -> None:
    Path(settings["out"]).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"out: .* is there already"):
        clean.clean(CleanConfig(**settings))


def test_the_files_that_ship_hold_the_published_rules(settings: dict[str, Any]) -> None:
    given = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    rules = {path.stem: clean.read(path, given).overlap for path in CONFIGS.glob("*.yaml")}
    assert (rules["tulu3"].n, rules["tulu3"].share) == (8, 0.5)
    assert (rules["gpt3"].n, rules["gpt3"].share, rules["gpt3"].least) == (13, 0.0, 8)
