"""What a config asks of an installation: read from the config and from the source of the components it chooses.

A component that uses an optional package imports it somewhere, when it starts; the import statements of its file, and
of the files of its own package that those lead to, say which. So a new component needs no entry anywhere.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf.core.component import Component
from rlhf.core.hub import is_hub_id
from rlhf.doctor.findings import Needs
from rlhf.loops.settings import Experiment
from rlhf.runtime import ray


def of(experiment: Experiment, optional: Collection[str]) -> Needs:
    """What a checked config needs.

    Args:
        optional: import names to look for.
    """
    settings = experiment.settings
    packages: dict[str, str] = {}
    blocks = {"": settings} | {f"{stage.name}.": stage.config for stage in experiment.stages}
    for prefix, block in blocks.items():
        for key, component in components(block):
            for package in imports(component.module, optional):
                packages.setdefault(package, f"{prefix}{key}.name={component.name}")
    if "datasets" in optional:
        for source in settings.task.module.sources(settings.task.config):
            if is_hub_id(source) and not Path(source).expanduser().exists():
                packages.setdefault("datasets", f"task.name={settings.task.name} (with data from the hub)")
    runtime = settings.runtime.config
    gpu = f"device={settings.device}" if settings.device.startswith("cuda") else ""
    nodes, store = 1, None
    if isinstance(runtime, ray.Config):
        nodes = runtime.nodes
        if runtime.address is None:
            store = runtime.object_store_mib * 2**20
            gpu = gpu or ("runtime.gpus=1" if runtime.gpus == "1" else "")
    return Needs(packages=packages, gpu=gpu, nodes=nodes, object_store=store, offline_model=_own_model(experiment))


def components(block: Any, prefix: str = "") -> Iterator[tuple[str, Component]]:
    """Every component that a config object holds, with its key, those of components included."""
    for field in dataclasses.fields(block):
        value = vars(block)[field.name]
        entries: Mapping[str, Any] = {field.name: value}
        if isinstance(value, Mapping):
            entries = {f"{field.name}.{label}": entry for label, entry in value.items()}
        for key, entry in entries.items():
            if isinstance(entry, Component):
                yield f"{prefix}{key}", entry
                yield from components(entry.config, f"{prefix}{key}.")
            elif dataclasses.is_dataclass(entry) and not isinstance(entry, type):
                yield from components(entry, f"{prefix}{key}.")


def imports(module: ModuleType, wanted: Collection[str]) -> list[str]:
    """Which packages a module imports, anywhere in it or in what it leads to within its own package."""
    package = module.__name__.rpartition(".")[0]
    found: list[str] = []
    seen = {module.__name__}
    queue = [Path(module.__file__)] if module.__file__ else []
    while queue:
        for name in _imported(queue.pop()):
            top = name.split(".")[0]
            if top in wanted and top not in found:
                found.append(top)
            if name not in seen and package and name.startswith(f"{package}."):
                seen.add(name)
                queue += _source(name)
    return found


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """`a.b` of `import a.b`; both `a` and `a.b` of `from a import b`, which may be a module or not."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _source(name: str) -> list[Path]:
    """The file of a module; none for what is no module, or has no file."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return []
    return [Path(spec.origin)] if spec is not None and spec.origin and spec.origin.endswith(".py") else []


def _own_model(experiment: Experiment) -> str:
    """The key of a model that lies on this machine, or will."""
    model = experiment.settings.model
    if model.init is not None:
        return f"model.init={model.init}"
    if model.path is not None and Path(model.path).expanduser().is_dir():
        return f"model.path={model.path}"
    return ""
