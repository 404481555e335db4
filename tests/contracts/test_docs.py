"""docs/configuration.md is what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_configuration_page_matches_the_code() -> None:
    spec = importlib.util.spec_from_file_location("make_configuration", DOCS / "make_configuration.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fix = "run python docs/make_configuration.py"
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == module.page(), fix


def test_every_key_is_explained() -> None:
    rows = [line for line in (DOCS / "configuration.md").read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    assert rows and not [row for row in rows if row.endswith("|  |")]
