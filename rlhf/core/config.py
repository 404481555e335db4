"""From YAML and `key=value` overrides to checked, frozen objects, and back.

`load` follows `base:` parents and applies overrides; `build` turns the result into a dataclass. A field declared with
`slot(...)` holds one component chosen by name, `slots(...)` a dictionary of them; their own `Config` checks what is
inside. Unknown keys, wrong types and impossible values raise `ConfigError` with the path, the choices and the fix.
A `__post_init__` raises `ConfigError("field", …)` with the field's name; `build` adds the path in front.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, make_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlhf.core import component
from rlhf.core.component import Component
from rlhf.core.errors import ConfigError, did_you_mean

T = TypeVar("T")
LABELLED = ("run", "schedule")
"""Blocks whose `name` is a mere value: changing it changes nothing else. Elsewhere `name` chooses a component."""

Tree = dict[str, Any]
"""Raw YAML content, before `build` has checked it."""


def slot(package: str, default: str) -> Any:
    """A dataclass field that holds one `Component` of a package, chosen by its `name` key."""
    return field(
        default_factory=lambda: build_component(package, {"name": default}, default),
        metadata={"slot": package, "default": default},
    )


def slots(package: str) -> Any:
    """A dataclass field that holds `dict[str, Component]`; an entry's `name` defaults to its key, null removes it."""
    return field(default_factory=dict[str, Component], metadata={"slots": package})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config file after inheritance and overrides."""

    path: Path
    tree: Tree
    bases: tuple[Path, ...]
    """Parents, nearest last; what a report compares against."""
    base_tree: Tree
    """The merged parents alone."""


def load(path: Path, overrides: Sequence[str] = (), *, otherwise: Path | None = None) -> Loaded:
    """Read a YAML file with its `base:` parents and apply `key=value` overrides.

    Args:
        otherwise: the parent of a file that names none and no `stages`, and so is no config by itself.

    Raises:
        ConfigError: missing file, broken YAML, circular `base`, or an override that is not `key=value`.
    """
    own, parents = _read(path, ())
    if otherwise is not None and not parents and "stages" not in own:
        parents = {otherwise.resolve(): _read(otherwise, ())[0]}
    base = _merged(*parents.values())
    for item in overrides:
        if "=" not in item:
            raise ConfigError(item, "is not an override", fix="write key=value, for example rl.steps=20")
    try:
        merged = _merged(base, own, OmegaConf.from_dotlist(list(overrides)))
        tree = OmegaConf.to_container(merged, resolve=True)
        base_tree = OmegaConf.to_container(base, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(str(path), _first_line(error), fix="check the overrides and ${…} references") from error
    assert isinstance(tree, dict) and isinstance(base_tree, dict)
    return Loaded(path, typing.cast(Tree, tree), tuple(parents), typing.cast(Tree, base_tree))


def restated(path: Path) -> list[str]:
    """Keys of a recipe that only repeat the value they inherit; a recipe should hold none."""
    own, parents = _read(path, ())
    inherited, mine = flatten(_container(_merged(*parents.values()))), flatten(_container(own))
    return sorted(k for k, v in mine.items() if k in inherited and inherited[k] == v)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` becomes `{"a.b": 1}`; lists and empty mappings stay whole."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            out |= flatten(typing.cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def build(schema: type[T], tree: Mapping[str, Any] | None, where: str = "") -> T:
    """Check a raw tree against a dataclass and make the object.

    Args:
        schema: dataclass; fields may be plain values, nested dataclasses, `slot`s or `slots`.
        tree: raw content; None means all defaults.
        where: config path of this tree, for messages.
    """
    tree = tree or {}
    hints = _hints(schema)
    known = {f.name: f for f in fields(typing.cast(Any, schema)) if f.init}
    for key in tree:
        if key not in known:
            deeper = _below(schema, str(key))
            fix = f"it belongs deeper: {' or '.join(_join(where, path) for path in deeper)}"
            fix = fix if deeper else did_you_mean(str(key), known)
            raise ConfigError(_join(where, key), "unknown key", fix=fix)
    values: Tree = {}
    plain: Tree = {}
    for name, f in known.items():
        path = _join(where, name)
        if name not in tree:
            if f.default is MISSING and f.default_factory is MISSING:
                raise ConfigError(path, "is required", fix=f"set {path}=…")
        elif "slot" in f.metadata:
            default = f.metadata["default"]
            values[name] = build_component(f.metadata["slot"], _named(tree[name], default, path), path)
        elif "slots" in f.metadata:
            values[name] = _build_slots(f.metadata["slots"], tree[name], path)
        elif is_dataclass(hints[name]):
            values[name] = build(typing.cast("type[Any]", hints[name]), _mapping(tree[name], path), path)
        else:
            plain[name] = tree[name]
    values |= _plain(known, hints, plain, where)
    try:
        return schema(**values)
    except ConfigError as error:
        raise ConfigError(_join(where, error.where), error.problem, fix=error.fix) from error


def build_component(package: str, tree: Any, where: str) -> Component:
    """Resolve a slot's `name` and build its config. A plain string stands for `{name: …}`."""
    entry: Tree = {"name": tree} if isinstance(tree, str) else dict(_mapping(tree, where))
    name = entry.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{where}.name", "is required", fix=f"one of: {', '.join(component.names(package))}")
    name, extra = component.as_component(package, name)
    module = component.resolve(package, name, where=f"{where}.name")
    return Component(name, module, build(module.Config, extra | entry, where))


def to_tree(value: Any) -> Any:
    """The inverse of `build`: dataclasses and components become plain YAML content."""
    if isinstance(value, Component):
        return {"name": value.name, **to_tree(value.config)}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_tree(vars(value)[f.name]) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {str(k): to_tree(v) for k, v in typing.cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [to_tree(v) for v in typing.cast("list[Any]", value)]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def to_yaml(tree: Tree) -> str:
    """YAML text in the order of the schema."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110)


def _below(schema: Any, key: str) -> list[str]:
    """The paths of a key in the blocks of a schema."""
    hints = _hints(schema)
    names = [f.name for f in fields(schema) if f.init and hints[f.name] is not Component]
    blocks = {name: hints[name] for name in names if is_dataclass(hints[name])}
    found = [f"{name}.{key}" for name, block in blocks.items() if key in {f.name for f in fields(block)}]
    return found + [f"{name}.{path}" for name, block in blocks.items() for path in _below(block, key)]


def _named(tree: Any, default: str, where: str) -> Any:
    """A slot's content; without a name it speaks of the component that the slot holds by default."""
    return tree if isinstance(tree, str) else {"name": default} | dict(_mapping(tree, where))


def _build_slots(package: str, tree: Any, where: str) -> dict[str, Component]:
    out: dict[str, Component] = {}
    for key, value in _mapping(tree, where).items():
        if value is None:
            continue
        entry = {"name": value} if isinstance(value, str) else dict(_mapping(value, _join(where, key)))
        out[key] = build_component(package, {"name": key} | entry, _join(where, key))
    return out


@cache
def _hints(schema: Any) -> dict[str, Any]:
    return typing.get_type_hints(schema)


def _plain(known: Mapping[str, Field[Any]], hints: Mapping[str, Any], tree: Tree, where: str) -> Tree:
    """Convert and check plain values with OmegaConf's structured types; what is of its type already stays as it is."""
    settled = {name: value for name, value in tree.items() if type(value) is hints[name] and _is_scalar(value)}
    other = {name: value for name, value in tree.items() if name not in settled}
    if not other:
        return settled
    shape = make_dataclass("Plain", [(name, hints[name], field(default=typing.cast(Any, "???"))) for name in other])
    try:
        merged = OmegaConf.merge(OmegaConf.structured(shape), other)
        out = OmegaConf.to_container(merged, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = str(error.full_key or error.key or next(iter(tree)))
        hint = hints[key.split(".")[0].split("[")[0]]
        fix = f"give a value of type {hint.__name__ if isinstance(hint, type) else hint}"
        raise ConfigError(_join(where, key), _first_line(error), fix=fix) from error
    assert isinstance(out, dict)
    return settled | typing.cast(Tree, out)


def _is_scalar(value: object) -> bool:
    """Not `???` or `${…}`, which mean something to OmegaConf."""
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and value != "???" and "${" not in value)


def _read(path: Path, seen: tuple[Path, ...]) -> tuple[DictConfig, dict[Path, DictConfig]]:
    """A file's own content, and that of all its parents, nearest last.

    A parent that two others share counts once, in the first place: otherwise the second would undo what the first
    changes in it.
    """
    path = path.resolve()
    if path in seen:
        chain = " -> ".join(p.name for p in (*seen, path))
        raise ConfigError(str(path), f"`base` goes in a circle: {chain}", fix="remove one of these lines")
    if not path.is_file():
        asked = f", named as base by {seen[-1]}" if seen else ""
        raise ConfigError(str(path), f"no such config file{asked}", fix="check the path; recipes lie in configs/")
    try:
        own = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"is not valid YAML: {error}", fix="mend the line it names") from error
    if not isinstance(own, DictConfig):
        raise ConfigError(str(path), "is not a mapping of keys to values", fix="start from configs/base.yaml")
    listed = own.pop("base", None)
    names = [listed] if isinstance(listed, str) else list(listed or [])
    parents: dict[Path, DictConfig] = {}
    for name in names:
        parent = (path.parent / str(name)).resolve()
        content, further = _read(parent, (*seen, path))
        for file, its_content in (*further.items(), (parent, content)):
            parents.setdefault(file, its_content)
    return own, parents


def _merged(*layers: DictConfig) -> DictConfig:
    """Later layers win key by key, except that naming another component starts it from its own defaults."""
    out = OmegaConf.create({})
    for layer in layers:
        _forget_replaced(out, layer)
        out = typing.cast(DictConfig, OmegaConf.merge(out, layer))
    return out


def _forget_replaced(below: DictConfig, above: DictConfig) -> None:
    """Drop the keys of a component that the layer above replaces by another one."""
    for key in [k for k in above if _is_plain(above, k) and _is_plain(below, k)]:
        old, new = below[key], above[key]
        if not isinstance(old, DictConfig) or not isinstance(new, DictConfig):
            continue
        if key not in LABELLED and {"name"} <= old.keys() & new.keys() and old["name"] != new["name"]:
            below[key] = {}
        else:
            _forget_replaced(old, new)


def _is_plain(node: DictConfig, key: Any) -> bool:
    return key in node and not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key)


def _container(node: DictConfig) -> Tree:
    return typing.cast(Tree, OmegaConf.to_container(node, resolve=False))


def _mapping(tree: Any, where: str) -> Mapping[str, Any]:
    if tree is None:
        return {}
    if not isinstance(tree, Mapping):
        raise ConfigError(where, f"expected keys and values, got {tree!r}", fix="indent its keys below it")
    return typing.cast("Mapping[str, Any]", tree)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
