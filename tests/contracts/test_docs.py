"""docs/configuration.md is what the code says."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rlhf.core import component
from rlhf.loops import settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = "".join((DOCS / f"{name}.md").read_text("utf-8") for name in ("cluster", "training"))
COMMANDS = re.findall(r"(?:rlhf \w+|launch/slurm.sh) (configs/\S+)([^#\n]*)", PAGES)


def test_the_configuration_page_matches_the_code() -> None:
    spec = importlib.util.spec_from_file_location("make_configuration", DOCS / "make_configuration.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fix = "run python docs/make_configuration.py"
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == module.page(), fix


@pytest.mark.parametrize(("config", "rest"), COMMANDS)
def test_commands_of_these_pages_name_a_config_and_keys_that_there_are(config: str, rest: str) -> None:
    overrides = shlex.split(rest.partition(" -- ")[0])
    settings.read(ROOT / config, overrides)


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
