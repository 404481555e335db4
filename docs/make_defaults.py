"""Writes docs/defaults.md from the recipes: what every method trains with, and which file says so.

python docs/make_defaults.py            # a test holds the page against this output
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from make_configuration import field_docs

from rlhf.core import config
from rlhf.core.component import Component
from rlhf.loops import settings

PAGE = Path(__file__).parent / "defaults.md"
CONFIGS = Path(__file__).parents[1] / "configs"

HEAD = """# Defaults of the recipes

What the last stage of each recipe trains with, resolved; where a recipe makes its data itself, also how (`build`).
*Set by* is the recipe, a parent of it, or `code`: the default of the component, whose meaning says which paper or code
it is from. [algorithms.md](algorithms.md) has the formulas and which key is which symbol,
[configuration.md](configuration.md) every other key. Each family begins with one recipe; of the others there is what
differs from it. A block that is off shows its switch only; keys of machines and of measuring are left out.

Learning rates, batch sizes and steps are those of a model of a million parameters on two CPU cores. They are no advice
for large models, for which the papers' rates of 1e-6 and below are a start.

This page is written by `python docs/make_defaults.py` from the configs.
"""
FAMILIES: dict[str, tuple[str, ...]] = {
    "Policy": (
        "grpo", "dr_grpo", "dapo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "remax", "gspo", "cispo", "sapo",
        "ppo", "rise_verify",
    ),
    "Preferences": (
        "dpo", "cdpo", "robust_dpo", "rpo", "dpo_norm", "ipo", "hinge", "apo_zero", "sppo", "simpo", "orpo", "kto",
        "rise",
    ),
    "Supervised": ("sft", "chat_sft", "masked_thought", "intuitive", "rationale", "mml", "distill"),
    "Models that grade": ("reward_model", "process_model"),
    "What trains, and whom it follows": ("grpo", "quickstart", "half", "lora", "qlora", "on_policy_distill"),
}  # fmt: skip
"""The first of each is the one that the others are told from."""
LEADS = ("Policy", "Preferences", "Supervised", "Models that grade")
"""Families whose first recipe belongs to them."""
SWITCHES = {"kl_in_reward": "coef", "reference": "every", "teacher": "path", "reward_model": "path"}
"""Of blocks of a stage: what turns them on."""
HIDDEN = (
    "loop", "tasks", "evaluate_every", "held_out", "boundary", "data", "start", "max_staleness", "learner.backend",
    "learner.chunk_mib", "learner.micro_batch_tokens", "learner.gradient_checkpointing", "select", "max_per_prompt",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A key of a recipe."""

    key: str
    value: str
    meaning: str
    set_by: str


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(family(title, names) for title, names in FAMILIES.items())])


def family(title: str, names: tuple[str, ...]) -> str:
    """The first recipe, then what differs from it in each of the others."""
    first, *others = (list(rows(CONFIGS / f"{name}.yaml")) for name in names)
    known = {(_below(row.key), row.value) for row in first}
    parts = [f"## {title}", "", f"Told from [{names[0]}](../configs/{names[0]}.yaml)."]
    for name, found in zip(names, [first, *others], strict=True):
        if found is first and title not in LEADS:
            continue
        told = found if found is first else [r for r in found if (_below(r.key), r.value) not in known]
        parts += ["", f"### [{name}](../configs/{name}.yaml)", "", *table(told)]
    return "\n".join([*parts, ""])


def table(found: list[Row]) -> list[str]:
    """Markdown lines."""
    if not found:
        return ["The same; the data differ."]
    lines = [f"| `{r.key}` | `{r.value}` | {r.set_by} | {r.meaning} |" for r in found]
    return ["| key | value | set by | meaning |", "|---|---|---|---|", *lines]


def rows(path: Path) -> Iterator[Row]:
    """Keys of the last stage of a recipe, and of how it makes its data."""
    files = [*config.load(path).bases, path]
    written = [(file, config.flatten(_own(file))) for file in files]
    stages = settings.read(path).stages
    for stage in stages:
        last = stage is stages[-1]
        for key, value, meaning in leaves(stage.config, "", last=last):
            setters = [f.stem for f, tree in written if _says(tree, f"{stage.name}.{key}", value)]
            shown = "null" if value is None else str(value).replace("\n", "\\n").replace("|", "\\|")
            yield Row(f"{stage.name}.{key}", shown or '""', meaning, setters[-1] if setters else "code")


def leaves(held: Any, prefix: str, *, last: bool) -> Iterator[tuple[str, Any, str]]:
    """(key, value, meaning) of what a stage shows, in order."""
    docs = field_docs(type(held))
    for field in dataclasses.fields(held):
        value, key = vars(held)[field.name], f"{prefix}{field.name}"
        if not field.init or key.removeprefix("critic.") in HIDDEN or (not last and not key.startswith("build")):
            continue
        if isinstance(value, Component):
            yield f"{key}.name", value.name, docs.get(field.name, "")
            yield from leaves(value.config, f"{key}.", last=last)
        elif isinstance(value, dict) and value and all(isinstance(v, Component) for v in value.values()):
            for label, one in value.items():
                yield f"{key}.{label}.name", one.name, docs.get(field.name, "")
                yield from leaves(one.config, f"{key}.{label}.", last=last)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from _block(held, value, key, last=last)
        else:
            yield key, config.to_tree(value), docs.get(field.name, "")


def _block(stage: Any, block: Any, key: str, *, last: bool) -> Iterator[tuple[str, Any, str]]:
    """A block of a stage; of one that is off only what would turn it on."""
    needs_critic = getattr(stage, "needs_critic", False)
    if (key == "critic" and not needs_critic) or (key == "verify" and not block.share):
        return
    switch = SWITCHES.get(key)
    for name, value, meaning in leaves(block, f"{key}.", last=last):
        if switch is None or vars(block)[switch] or name == f"{key}.{switch}":
            yield name, value, meaning


def _below(key: str) -> str:
    """A key without the name of its stage."""
    return key.partition(".")[2]


def _own(file: Path) -> dict[str, Any]:
    """What a file itself says."""
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {key: value for key, value in tree.items() if key != "base"}


def _says(tree: dict[str, Any], key: str, value: Any) -> bool:
    """Whether a file sets a key to this value; a component may stand for its name."""
    short = key.removesuffix(".name")
    for name in {key, short}:
        if name in tree and (tree[name] == value or tree[name] == {} or str(tree[name]).startswith("${")):
            return True
    return False


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
