"""The shape of the code: who may import whom, which packages stay optional, and how large a file may become."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAYERS = (
    ("rlhf.cli",),
    ("rlhf.sweeps", "rlhf.doctor", "rlhf.lab"),
    ("rlhf.loops",),
    ("rlhf.report", "rlhf.runtime"),
    ("rlhf.learner", "rlhf.sync"),
    ("rewards", "rollout", "rlhf.tasks", "rlhf.data", "rlhf.advantages", "rlhf.losses", "rlhf.models"),
    ("rlhf.core",),
)
"""From the top. A room sees itself and the layers below it, never its neighbours."""

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
CLUSTER = {
    "vllm": (
        "rlhf.sync.vllm_transfer",
        "rollout.shm_transfer",
        "rollout.vllm_loading",
        "rollout.vllm_requests",
        "rollout.vllm_sampler",
        "rollout.vllm_start",
        "rollout.vllm_worker",
    ),
    "ray": (
        "rlhf.runtime.actors",
        "rlhf.runtime.on_ray",
        "rlhf.runtime.process",
        "rlhf.runtime.ray_nodes",
        "rlhf.runtime.remote",
        "rlhf.runtime.sending",
        "rlhf.sweeps.ray_server",
    ),
    "deepspeed": ("rlhf.learner.backends.deepspeed_backend",),
}
"""Who may import a package that only a cluster needs."""
MAX_FILE, MAX_FUNCTION = 400, 60
TOO_LONG: frozenset[str] = frozenset()
"""Exceptions to the two limits, as `path` or `path:function`, each with a reason; there are none."""


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


SOURCES = files("rlhf", "rewards", "rollout")
EVERYTHING = SOURCES + files("tests", "benchmarks", "docs", "launch", ".ci")


def name_of(path: Path) -> str:
    """`rlhf/core/types.py` is `rlhf.core.types`, a package's `__init__.py` the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    """The room that a module lies in; None for a module that is not ours."""
    return next((room for room in LEVEL if module == room or module.startswith(f"{room}.")), None)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, *, at_run_time: bool = False) -> tuple[str, ...]:
    """Full names of what a file imports, anywhere in it; `from a import b` counts as `a.b`."""
    return tuple(_imports(path, at_run_time))


def _imports(path: Path, at_run_time: bool) -> Iterator[str]:
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    for node in walk(tree(path), at_run_time):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def walk(node: ast.AST, at_run_time: bool = False) -> Iterator[ast.AST]:
    """All statements; `at_run_time` leaves out what only a type checker sees."""
    left = [node]
    while left:
        for child in ast.iter_child_nodes(left.pop()):
            if not isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
                continue
            hidden = isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"
            if not (hidden and at_run_time):
                yield child
                left.append(child)


def violations(path: Path) -> list[str]:
    """Imports of a file that its layer does not allow."""
    here = room_of(name_of(path))
    assert here is not None, f"{path} lies in no room: give it one in LAYERS"
    seen = {there for module in imports(path) if (there := room_of(module)) is not None}
    return sorted(there for there in seen if there != here and LEVEL[there] <= LEVEL[here])


def test_a_room_imports_only_from_the_layers_below() -> None:
    found = {name_of(path): violations(path) for path in SOURCES if name_of(path) != "rlhf"}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_the_rule_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "rlhf" / "losses" / "new.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import torch, rlhf.core.types\nimport rlhf.models.load as load\nfrom rlhf import report\n"
        "from . import common\nfrom .. import tasks\nfrom ..data.packing import pack\n"
        "def later():\n    from rewards import base\n"
    )
    assert violations(path) == ["rewards", "rlhf.data", "rlhf.models", "rlhf.report", "rlhf.tasks"]


@pytest.mark.parametrize("package", CLUSTER)
def test_a_cluster_package_is_imported_by_few_files(package: str) -> None:
    users = [name_of(p) for p in SOURCES if any(module.split(".")[0] == package for module in imports(p))]
    assert set(users) == set(CLUSTER[package])


def test_the_core_names_torch_for_type_checkers_only() -> None:
    heavy = {"torch", "transformers"}
    users = [name_of(p) for p in files("rlhf/core") if heavy & {m.split(".")[0] for m in imports(p, at_run_time=True)}]
    assert users == []


def test_neither_the_core_nor_a_verifier_needs_torch() -> None:
    modules = [name_of(p) for p in files("rlhf/core", "rewards")]
    code = f"import sys, {', '.join(modules)}\nprint(*({{'torch', 'transformers'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_files_and_functions_stay_small() -> None:
    found: set[str] = set()
    for path in EVERYTHING:
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        if text.count("\n") > MAX_FILE:
            found.add(name)
        for node in walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno >= MAX_FUNCTION:
                    found.add(f"{name}:{node.name}")
    assert found == TOO_LONG
