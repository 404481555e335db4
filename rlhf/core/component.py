"""Component resolution: the file name is the registry key.

`loss.name: dpo` resolves `rlhf.losses.dpo`; a dotted name (`mylab.losses.fancy`) loads the user's own module. A
component module exposes a keyword-only dataclass `Config` and the function or class that its protocol names. There
is no list to edit and nothing to synchronise across a cluster.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf.core.errors import ConfigError, did_you_mean

_DEFINES_CONFIG = re.compile(r"^class Config\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Component:
    """A resolved slot: its name, its module, and its config object (an instance of `module.Config`)."""

    name: str
    module: ModuleType
    config: Any


def names(package: str) -> list[str]:
    """The components that ship in a package: its modules that define `Config`, sorted. Nothing is imported."""
    root = importlib.util.find_spec(package)
    assert root is not None and root.submodule_search_locations, f"{package} is a package of ours"
    found: list[str] = []
    for folder in map(Path, root.submodule_search_locations):
        files = {p.stem: p for p in folder.glob("*.py")} | {p.parent.name: p for p in folder.glob("*/__init__.py")}
        found += [name for name, file in files.items() if _defines_config(file, file.stat().st_mtime_ns)]
    return sorted(found)


@cache
def _defines_config(file: Path, changed: int) -> bool:
    """Whether a file, as it was when it last changed, is a component."""
    return _DEFINES_CONFIG.search(file.read_text(encoding="utf-8")) is not None


def resolve(package: str, name: str, *, where: str) -> ModuleType:
    """The module behind a component name.

    Args:
        package: where short names live, `rlhf.losses`.
        name: a file name in that package, or the dotted path of a user module.
        where: config path, for the error message.

    Raises:
        ConfigError: no such component, or its module lacks a `Config`.
    """
    target = name if "." in name else f"{package}.{name}"
    if "." not in name and name not in names(package):
        raise ConfigError(where, f"there is no '{name}' in {package}", fix=did_you_mean(name, names(package)))
    try:
        module = importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name is None or not target.startswith(error.name):
            raise
        fix = f"put the module on PYTHONPATH, or use a shipped one ({', '.join(names(package))})"
        raise ConfigError(where, f"cannot import '{target}': {error}", fix=fix) from error
    config = vars(module).get("Config")
    if not (isinstance(config, type) and is_dataclass(config)):
        raise ConfigError(where, f"module '{target}' has no dataclass `Config`", fix="add one; it may be empty")
    return module


def as_component(package: str, name: str) -> tuple[str, dict[str, str]]:
    """A dotted path to a plain function stands for the package's `user_function` component.

    Returns:
        The component's name and the config keys that the short form implies: `("user_function", {"path": name})` for
        `mylab.rewards.accuracy`; anything else comes back unchanged.
    """
    if "." not in name or "user_function" not in names(package):
        return name, {}
    parent, attribute = name.rsplit(".", 1)
    try:
        if importlib.util.find_spec(name) is not None:
            return name, {}
    except ModuleNotFoundError:
        pass
    try:
        target = vars(importlib.import_module(parent)).get(attribute)
    except ModuleNotFoundError:
        return name, {}
    return ("user_function", {"path": name}) if callable(target) else (name, {})
