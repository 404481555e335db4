"""docs/data.md: every builder has its place, every config of one is linked, and keys and defaults are the code's."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from rlhf.core import component

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
BUILDERS = component.names("rlhf.data.build")
TABLE = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| \[(`.*?)\]", PAGE, flags=re.MULTILINE))))


def test_every_builder_is_in_the_table_and_links_lead_somewhere() -> None:
    assert set(BUILDERS) == TABLE
    headings = {line.removeprefix("## ").lower().replace(" ", "-") for line in PAGE.splitlines() if line[:3] == "## "}
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= headings


def test_every_config_of_a_builder_is_linked() -> None:
    linked = set(re.findall(r"\(\.\./configs/build/(\w+)\.yaml\)", PAGE))
    assert linked == {path.stem for path in (ROOT / "configs" / "build").glob("*.yaml")}


def test_keys_and_their_defaults_are_those_of_the_code() -> None:
    configs = [component.resolve("rlhf.data.build", name, where="build").Config for name in BUILDERS]
    defaults: dict[str, set[str]] = {}
    for config in configs:
        for field in dataclasses.fields(config):
            defaults.setdefault(field.name, set()).add(str(field.default))
    found = re.findall(r"^\| `build\.(\w+)` \|.*$", PAGE, flags=re.MULTILINE)
    assert {"rows", "normalize", "flip"} <= set(found) <= set(defaults)
    assert set(re.findall(r"`build\.(\w+)`", PAGE)) <= set(defaults)
    for key, value in re.findall(r"^\| `build\.(\w+)` \| (?:\w \| )?`([\w.]+)`", PAGE, flags=re.MULTILINE):
        assert value in defaults[key], key
