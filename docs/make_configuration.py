"""Writes docs/configuration.md from the dataclasses that check a config: every key, default and meaning.

python docs/make_configuration.py            # a test holds the page against this output
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

from rlhf.core import component, config
from rlhf.lab import audit
from rlhf.loops import clean, generate, merge, offline, online, settings
from rlhf.loops.catalogue import SLOTS
from rlhf.sweeps import spec

PAGE = Path(__file__).parent / "configuration.md"

HEAD = """# Configuration

One YAML file describes a run. `base:` names parent files, whose content it inherits; a recipe holds only the rest.
`key=value` on the command line overrides, with dots for nesting: `rl.loss.clip_high=0.28`. `rlhf plan CONFIG` shows the
resolved file and refuses what cannot run. Counts are global and say what they count.

`stages: [sft, rl]` runs the blocks `sft:` and `rl:` of the file, in order, each from the weights of the one before. A
block's `loop` says what it is: `online`, `offline` or `generate`.

Where a key holds a *component*, `name` chooses it: a file of the package given, or the dotted path of your own module.
Its other keys are the component's own, listed at the end. Dictionaries of components (`rewards`, `filters`) use their
labels as names; null removes an inherited entry.

This page is written by `python docs/make_configuration.py` from the code.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, section("Top level", settings.Settings, "")]
    for title, module in (("online", online), ("offline", offline), ("generate", generate)):
        text = (module.__doc__ or "").strip().splitlines()[0]
        parts.append(section(f"A stage with `loop: {title}`", module.Config, f"{text}\n"))
    for slot, package in SLOTS.items():
        parts.append(f"## Components of `{slot}` (`{package}`)\n")
        for name in component.names(package):
            module = component.resolve(package, name, where=slot)
            text = (module.__doc__ or "").strip().splitlines()[0]
            parts.append(f"### `{name}`\n\n{text}\n\n{table(module.Config, '')}")
    parts.append(
        section("A sweep file", spec.Config, "What `rlhf sweep FILE` reads; `configs/ablations` holds examples.\n")
    )
    parts.append(section("`metrics` of a sweep file, by label", spec.Metric, ""))
    parts.append(section("`expect` of a sweep file, a list", spec.Expectation, ""))
    parts.append(section("An audit file", audit.Config, "What `rlhf audit FILE` reads; `configs/audit` holds some.\n"))
    parts.append(section("`corpora` of an audit file, by label", audit.Measured, ""))
    lead = "What `rlhf merge FILE` reads; `configs/merge` holds examples.\n"
    parts.append(section("A merge file", merge.MergeConfig, lead))
    lead = "What `rlhf clean FILE` reads; `configs/care` holds examples.\n"
    parts.append(section("A cleaning file", clean.CleanConfig, lead))
    return "\n".join(parts)


def section(title: str, schema: type[Any], lead: str) -> str:
    """A heading and the table of a schema."""
    return f"## {title}\n\n{lead}\n{table(schema, '')}"


def table(schema: type[Any], prefix: str) -> str:
    """Markdown table of keys, nested dataclasses flattened."""
    found = list(rows(schema, prefix))
    if not found:
        return "No keys.\n"
    lines = ["| key | default | meaning |", "|---|---|---|"]
    return "\n".join(lines + [f"| `{key}` | {default} | {text} |" for key, default, text in found]) + "\n"


def rows(schema: type[Any], prefix: str) -> list[tuple[str, str, str]]:
    """(key, default, meaning) of every field, in order."""
    docs = field_docs(schema)
    out: list[tuple[str, str, str]] = []
    for field in dataclasses.fields(schema):
        key = f"{prefix}{field.name}"
        default = _default(field)
        if dataclasses.is_dataclass(default) and not isinstance(default, component.Component | type):
            out += rows(type(default), f"{key}.")
        elif field.name in ("run", "model") and schema is settings.Settings:
            out += rows({"run": settings.RunSettings, "model": settings.load.Config}[field.name], f"{key}.")
        else:
            out.append((key, _shown(field, default), docs.get(field.name, "")))
    return out


@cache
def field_docs(schema: type[Any]) -> dict[str, str]:
    """The string below each field of a dataclass, inherited ones included."""
    docs: dict[str, str] = {}
    for base in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                docs[field.target.id] = " ".join(ast.literal_eval(text.value).split()).replace("|", "\\|")
    return docs


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


def _shown(field: dataclasses.Field[Any], default: Any) -> str:
    if default is dataclasses.MISSING:
        return "required"
    if isinstance(default, component.Component):
        return f"`{default.name}` of `{field.metadata['slot']}`"
    value = config.to_tree(default)
    return "null" if value is None else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
