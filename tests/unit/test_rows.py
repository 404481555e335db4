"""Rows of builders have the columns that docs/data.md says."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from batches import group

from rlhf.core import component
from rlhf.core.types import Verdict

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
SETTINGS: dict[str, dict[str, Any]] = {
    "self_sampled": {"completions": 0},
    "length_tokens": {"targets": [1], "width": 1, "more_than": 0},
}
"""Of builders that would ask, or find nothing, by themselves."""
ASK_NOTHING = (
    "samples",
    "dart_uniform",
    "best_of_n",
    "self_sampled",
    "pairs",
    "noisy_pairs",
    "r_tuning",
    "r_tuning_unsupervised",
    "tool_partition",
    "length_tokens",
)


def test_rows_have_the_columns_that_the_page_says() -> None:
    """Those of builders that ask nothing of a model; for the others their unit tests read what they write."""
    table = PAGE.split("columns beside these")[1].split("A sample's id")[0]
    told: dict[str, set[str]] = {}
    for names, columns in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^;\n]*?)(?:;.*)? \|$", table, flags=re.MULTILINE):
        like = re.match(r"as `(\w+)`, with ", columns)
        own = set(re.findall(r"`(\w+)`", columns[like.end() if like else 0 :]))
        own |= told[like[1]] if like else set()
        told |= dict.fromkeys(re.findall(r"`(\w+)`", names), own)
    assert {*told, "rise", "boundary"} == set(component.names("rlhf.data.build"))
    greedy = replace(group(1.0), prompt=group(1.0).prompt)
    asked = replace(group(1.0, 0.0, verdicts=[Verdict.CORRECT, Verdict.WRONG]), greedy=greedy)
    asked = replace(asked, prompt=replace(asked.prompt, columns={"pieces": [{"text": "2"}]}))
    for name in ASK_NOTHING:
        module = component.resolve("rlhf.data.build", name, where="build")
        cfg = module.Config(**SETTINGS.get(name, {}))
        rows = asyncio.run(module.build([asked], cfg, None))
        row = (module.finish(rows, cfg) if "finish" in vars(module) else rows)[0]
        assert set(row) - {"prompt_id", "messages", "gold"} == told[name], name
