"""Component resolution: files are the registry."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.core import component
from rlhf.core.errors import ConfigError

CONFIG = "from dataclasses import dataclass\n\n\n@dataclass(frozen=True, kw_only=True)\nclass Config:\n    x: int = 1\n"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `a_room` with two components and three modules that are none."""
    package = tmp_path / "a_room"
    (package / "nested").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plain.py").write_text(CONFIG)
    (package / "nested" / "__init__.py").write_text(CONFIG)
    (package / "common.py").write_text("class ConfigReader: ...\n# class Config\n")
    (package / "unfinished.py").write_text("class Config: ...\n")
    (package / "broken.py").write_text(f"import no_such_dependency\n{CONFIG}")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == "a_room"]:
        del sys.modules[name]


def test_names_are_the_files_that_define_a_config_and_none_is_imported(room: Path) -> None:
    assert component.names("a_room") == ["broken", "nested", "plain", "unfinished"]
    assert [name for name in sys.modules if name.startswith("a_room.")] == []


def test_a_new_file_is_a_new_component(room: Path) -> None:
    (room / "fresh.py").write_text(CONFIG)
    assert "fresh" in component.names("a_room")
    assert component.resolve("a_room", "fresh", where="slot.name").Config().x == 1


def test_short_and_dotted_names_resolve(room: Path) -> None:
    assert component.resolve("a_room", "nested", where="x").__name__ == "a_room.nested"
    assert component.resolve("rlhf.losses", "a_room.plain", where="x").__name__ == "a_room.plain"


@pytest.mark.parametrize(
    ("name", "problem", "fix"),
    [
        ("plane", "there is no 'plane' in a_room", "did you mean 'plain'?"),
        ("common", "there is no 'common' in a_room", "valid: broken, nested, plain, unfinished"),
        ("", "there is no ''", "valid:"),
        ("unfinished", "'a_room.unfinished' has no dataclass `Config`", "add one"),
        ("mylab_absent.loss", "cannot import 'mylab_absent.loss'", "PYTHONPATH"),
        ("a_room.absent", "cannot import 'a_room.absent'", "PYTHONPATH"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_fix(room: Path, name: str, problem: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        component.resolve("a_room", name, where="slot.name")
    assert caught.value.where == "slot.name"
    assert problem in caught.value.problem and fix in caught.value.fix


def test_a_missing_dependency_of_a_component_keeps_its_traceback(room: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        component.resolve("a_room", "broken", where="slot.name")


def test_a_dotted_function_stands_for_user_function_where_there_is_one(room: Path) -> None:
    (room / "mine.py").write_text("def grade(completions): ...\n\n\nNUMBER = 3\n")
    assert component.as_component("rewards", "a_room.mine.grade") == ("user_function", {"path": "a_room.mine.grade"})
    for name in ("math", "a_room.mine", "a_room.mine.NUMBER", "a_room.mine.absent", "mylab_absent.f"):
        assert component.as_component("rewards", name) == (name, {})
    assert component.as_component("rlhf.losses", "a_room.mine.grade") == ("a_room.mine.grade", {})
