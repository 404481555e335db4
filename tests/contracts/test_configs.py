"""Every file in `configs/`: it loads and checks, restates nothing that it inherits, and stays small."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.core import config
from rlhf.loops import settings

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "ablations")
LOADED = {path: config.load(path) for path in FILES}
RECIPES = [path for path, loaded in LOADED.items() if "stages" in loaded.tree]
MAX_LINES = 40


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_loads_and_checks(path: Path) -> None:
    experiment = settings.read(path)
    assert [stage.name for stage in experiment.stages] == LOADED[path].tree["stages"]


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_the_resolved_config_of_a_recipe_reads_back_as_the_same(path: Path, tmp_path: Path) -> None:
    resolved = settings.read(path).to_yaml()
    (tmp_path / "config.yaml").write_text(resolved, encoding="utf-8")
    assert settings.read(tmp_path / "config.yaml").to_yaml() == resolved


def test_a_file_that_is_no_recipe_is_the_parent_of_one() -> None:
    parents = {parent for path in RECIPES for parent in LOADED[path].bases}
    assert set(FILES) - set(RECIPES) <= parents


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_holds_only_its_difference(path: Path) -> None:
    assert config.restated(path) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_small_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_LINES
    assert any(line.startswith("#") for line in lines), "say in a comment what the recipe is for"


def test_runs_of_different_recipes_do_not_share_a_folder() -> None:
    names = [LOADED[path].tree["run"]["name"] for path in RECIPES]
    assert len(set(names)) == len(names)
