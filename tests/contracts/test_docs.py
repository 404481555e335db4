"""What the pages in docs say is what the code says."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf import cli
from rlhf.core import component, config
from rlhf.loops import settings
from rlhf.losses.correction import Correction
from rlhf.losses.surrogate import SurrogateConfig
from rlhf.sweeps import profile

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = "".join((DOCS / f"{name}.md").read_text("utf-8") for name in ("cluster", "training"))
COMMANDS = re.findall(r"(?:rlhf \w+|launch/slurm.sh) (configs/\S+)([^#\n]*)", PAGES)


def test_the_configuration_page_matches_the_code() -> None:
    fix = "run python docs/make_configuration.py"
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == page_of("make_configuration").page(), fix


@pytest.mark.parametrize(("recipe", "rest"), COMMANDS)
def test_commands_of_these_pages_name_a_config_and_keys_that_there_are(recipe: str, rest: str) -> None:
    overrides = shlex.split(rest.partition(" -- ")[0])
    settings.read(ROOT / recipe, overrides)


def test_every_key_is_explained() -> None:
    rows = [line for line in (DOCS / "configuration.md").read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    assert rows and not [row for row in rows if row.endswith("|  |")]


def test_what_the_rewards_page_claims_of_an_answer_holds() -> None:
    page = (DOCS / "rewards.md").read_text(encoding="utf-8")
    [block, *others] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    checked = 0
    for line in filter(None, block.splitlines()):
        code, _, claim = line.partition("  # value ")
        if not claim:
            exec(code, names)
            continue
        value, verdict, *reason = claim.strip().split(", ")
        found = eval(code, names)
        assert (found.value, found.verdict) == (float(value), verdict)
        assert not reason or found.reason == reason[0]
        checked += 1
    assert checked == 3
    for line in filter(None, "\n".join(others).splitlines()):
        code, _, value = line.partition("  # is ")
        if value:
            assert eval(code, names) == eval(value, {}), line
        else:
            exec(code, names)


def test_every_reward_has_a_section_and_a_config_on_its_page() -> None:
    page = (DOCS / "rewards.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", line.removeprefix("## ").lower()).replace(" ", "-")
        for line in page.splitlines()
        if line.startswith("## ")
    }
    links = dict(re.findall(r"^\| \[`?([\w ]+?)`?\]\(#([\w\-]+)\)", page, flags=re.MULTILINE))
    assert {*links.values()} <= headings
    assert {name for name in component.names("rewards") if name != "user_function"} == {*links} - {"your own"}
    for name in {*links} - {"your own"}:
        assert (ROOT / "configs" / "rewards" / f"{name}.yaml").exists(), name


REWARDS = (DOCS / "rewards.md").read_text(encoding="utf-8")
REWARD_SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", REWARDS, flags=re.MULTILINE | re.DOTALL))


def test_every_reward_says_its_source_when_to_use_it_and_how_it_can_be_hacked() -> None:
    titles = {title for title in REWARD_SECTIONS if title.endswith("`") or title in ("Mathematics", "Your own")}
    assert len(titles) == len(component.names("rewards"))
    for title in titles:
        parts = [part for part in ("*When.*", "*How it can be hacked.*") if part not in REWARD_SECTIONS[title]]
        assert not parts, title
        assert "arxiv.org/abs/" in REWARD_SECTIONS[title] or title == "Your own", title


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", REWARDS, flags=re.DOTALL))
def test_examples_on_the_rewards_page_load(block: str, tmp_path: Path) -> None:
    bases = [str(ROOT / "configs" / name) for name in ("sft.yaml", "grpo.yaml")]
    (tmp_path / "recipe.yaml").write_text(f"base: {bases}\n{block}", encoding="utf-8")
    settings.read(tmp_path / "recipe.yaml")


def test_what_the_page_of_budgets_claims_holds() -> None:
    page = (DOCS / "budget.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names: dict[str, Any] = {}
    for line in filter(None, block.splitlines()):
        code, _, value = line.partition("  # is ")
        if value:
            assert eval(code, names) == eval(value, {}), line
        else:
            exec(code, names)
    commands = re.findall(r"^rlhf profile (.*)$", page, flags=re.MULTILINE)
    parsed = [cli._parse(["profile", *shlex.split(command)]) for command in commands]
    assert [len(arguments.sources) for arguments in parsed] == [1, 2]
    options = re.findall(r"^\| `(--\w+)[^|]*\| (?:`([^`|]*)`)?", page, flags=re.MULTILINE)
    assert len(options) == 6
    defaults = {"--metric": profile.METRIC, "--cost": "steps"}
    assert {option: default for option, default in options if default} == defaults
    assert cli._parse(["profile", "x"]).cost == defaults["--cost"]


ALGORITHMS = (DOCS / "algorithms.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", ALGORITHMS, flags=re.MULTILINE | re.DOTALL))
WITH_RECIPE = {
    title: found[1] for title, text in SECTIONS.items() if (found := re.search(r"Recipes?:\s+\[(\w+\.yaml)\]", text))
}


def at(tree: Any, path: str) -> Any:
    """What a config has at a path with dots."""
    for key in path.split("."):
        tree = tree[key]
    return tree


@pytest.mark.parametrize("title", WITH_RECIPE)
def test_values_on_the_algorithms_page_are_those_of_the_recipes(title: str) -> None:
    tree = settings.read(ROOT / "configs" / WITH_RECIPE[title]).to_tree()
    resolved = tree[tree["stages"][-1]]
    rows = re.findall(r"^\| (`[\w.`, ]+`) \|[^|]*\| `([^`|]*)` \|[^|]*\|$", SECTIONS[title], flags=re.MULTILINE)
    assert rows
    for keys, value in rows:
        for key in re.findall(r"`([\w.]+)`", keys):
            assert at(resolved, key) == yaml.safe_load(value), key


def test_defaults_of_corrections_on_the_page_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| `([^`|]*)` \|", SECTIONS["Corrections"], flags=re.MULTILINE)
    assert {key: yaml.safe_load(value) for key, value in rows} == config.to_tree(Correction())


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", ALGORITHMS, flags=re.DOTALL))
def test_examples_on_the_algorithms_page_load(block: str, tmp_path: Path) -> None:
    bases = [str(ROOT / "configs" / name) for name in ("sft.yaml", "grpo.yaml")]
    (tmp_path / "recipe.yaml").write_text(f"base: {bases}\n{block}", encoding="utf-8")
    settings.read(tmp_path / "recipe.yaml")


def test_every_method_of_a_policy_is_on_the_algorithms_page() -> None:
    losses = {name: component.resolve("rlhf.losses", name, where="loss") for name in component.names("rlhf.losses")}
    named = {name for name, module in losses.items() if issubclass(module.Config, SurrogateConfig)}
    named |= set(component.names("rlhf.advantages"))
    assert {name for name in named if f"`{name}`" not in ALGORITHMS} == set()
    recipes = re.findall(
        r"^\| \[[^\]]+\]\(#([\w-]+)\) \|.*\(\.\./configs/(\w+)\.yaml\) \|$", ALGORITHMS, flags=re.MULTILINE
    )
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in SECTIONS}
    assert len(recipes) >= 11 and {anchor for anchor, _ in recipes} <= anchors
    for _, recipe in recipes:
        settings.read(ROOT / "configs" / f"{recipe}.yaml")


def test_the_page_of_tasks_matches_the_code() -> None:
    fix = "run python docs/make_tasks.py"
    assert (DOCS / "tasks.md").read_text(encoding="utf-8") == page_of("make_tasks").page(), fix


def test_the_page_of_defaults_matches_the_configs() -> None:
    fix = "run python docs/make_defaults.py"
    assert (DOCS / "defaults.md").read_text(encoding="utf-8") == page_of("make_defaults").page(), fix


def test_every_recipe_of_a_method_is_on_the_page_of_defaults() -> None:
    page = (DOCS / "defaults.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(\.\./configs/(\w+)\.yaml\)", ALGORITHMS))
    assert {name for name in linked if f"### [{name}]" not in page} == set()


def page_of(script: str) -> Any:
    """The module that writes a page."""
    spec = importlib.util.spec_from_file_location(script, DOCS / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[script] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
