"""What docs/algorithms.md says of defaults is what the losses have, and every config that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlhf.core import component
from rlhf.core.training import Labels

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
DEFAULTS = re.findall(r"^\| `(\w+)` \| `(\w+)` \| [^|]* \| ([\w.]+) \|", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize(("loss", "key", "default"), DEFAULTS)
def test_a_default_is_that_of_the_loss(loss: str, key: str, default: str) -> None:
    module = component.resolve("rlhf.losses", loss, where="loss")
    assert str(vars(module.Config())[key]) == default


def test_every_loss_of_labelled_answers_is_on_the_page() -> None:
    modules = {name: component.resolve("rlhf.losses", name, where="loss") for name in component.names("rlhf.losses")}
    labelled = {
        name for name, m in modules.items() if getattr(m, "LABELS", Labels.NONE) in (Labels.PAIRS, Labels.JUDGED)
    }
    assert labelled <= {loss for loss, _, _ in DEFAULTS}


def test_configs_and_pages_that_it_links_are_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert links and not [link for link in links if not (ROOT / "docs" / link).exists()]
