"""Every component file keeps the contract of its slot: discovered from the folders, so that a new file is checked too.

Its unit test is `tests/**/test_<name>.py`; where that name is not telling enough, as for the task and the reward called
`math`, it carries the slot or the package: `test_math_task.py`, `test_rewards_math.py` and `test_rewards_math_*.py`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.core import component, modules
from rlhf.lab import cases
from rlhf.loops.catalogue import SLOTS

ROOT = Path(__file__).parents[2]
TESTS = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
CITATION = re.compile(r"arXiv|https?://|\bSource:|\bet al\.,? \(?(19|20)\d\d")


@dataclass(frozen=True)
class Slot:
    """What a component of a slot must provide."""

    functions: dict[str, tuple[str, ...]]
    """Parameter names by function."""
    constants: tuple[str, ...] = ()
    cites: bool = False
    """It implements something published, and says what."""


def of_protocol(protocol: type[Any], *, cites: bool = False) -> Slot:
    """The functions of a module protocol, with their parameters."""
    methods = {name: f for name, f in vars(protocol).items() if inspect.isfunction(f) and not name.startswith("_")}
    return Slot({name: parameters(f)[1:] for name, f in methods.items()}, cites=cites)


def parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


CONTRACTS = {
    "task": Slot(
        {"build": ("cfg", "seed", "rows"), "sources": ("cfg",), "reference": ("prompt",)}, ("DESCRIPTION", "REWARDS")
    ),
    "rewards": of_protocol(modules.RewardModule),
    "engine": Slot({"build": ("cfg", "spec")}),
    "runtime": Slot({"start": ("cfg", "site")}),
    "backend": Slot({"build": ("cfg", "spec")}),
    "trainable": of_protocol(modules.TrainableModule),
    "sampler": of_protocol(modules.SamplerModule, cites=True),
    "filters": of_protocol(modules.FilterModule, cites=True),
    "examples": of_protocol(modules.ExamplesModule),
    "transforms": of_protocol(modules.TransformModule, cites=True),
    "curriculum": of_protocol(modules.CurriculumModule, cites=True),
    "build": Slot({"build": ("groups", "cfg", "continuer")}, ("CONTINUES", "WHOLE_GROUPS", "WRONG_TOO"), cites=True),
    "advantage": of_protocol(modules.AdvantageModule, cites=True),
    "loss": of_protocol(modules.LossModule, cites=True),
    "corpus": of_protocol(cases.Corpus),
    "loop": Slot({"run": ("cfg", "stage"), "batch_arithmetic": ("cfg",)}),
    "evaluation": Slot({}),
}


@dataclass(frozen=True)
class Found:
    """A component: where it is chosen, its package and its name."""

    slot: str
    package: str
    name: str

    def __str__(self) -> str:
        return f"{self.slot}-{self.name}"

    @property
    def module(self) -> ModuleType:
        return component.resolve(self.package, self.name, where=self.slot)


LOOPS = component.names("rlhf.loops")
FOUND = [
    *(Found(slot, package, name) for slot, package in SLOTS.items() for name in component.names(package)),
    *(Found("evaluation" if name == "evaluate" else "loop", "rlhf.loops", name) for name in LOOPS),
]

every_component = pytest.mark.parametrize("found", FOUND, ids=str)


def test_every_slot_has_components_and_a_contract() -> None:
    assert {found.slot for found in FOUND} == set(CONTRACTS)
    assert LOOPS == ["evaluate", "generate", "offline", "online"]


def test_protocols_are_read_as_contracts() -> None:
    assert CONTRACTS["loss"].functions["loss"] == ("forward", "batch", "cfg")
    assert set(CONTRACTS["loss"].functions) == {"denominator", "streams", "zero_advantage_is_free", "loss"}
    assert CONTRACTS["rewards"].functions == {"score": ("group", "cfg", "tools")}


@every_component
def test_config_is_a_frozen_dataclass_of_keyword_arguments(found: Found) -> None:
    config = found.module.Config
    assert dataclasses.is_dataclass(config) and config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.kw_only for field in dataclasses.fields(config))
    assert inspect.getdoc(config), "a Config says what it configures"


@every_component
def test_config_fields_have_types_and_defaults(found: Found) -> None:
    config = found.module.Config
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        assert hints[field.name] is not Any, f"{field.name} needs a type that can be checked"
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        assert has_default, f"{field.name} needs a default"


@every_component
def test_functions_have_the_parameters_of_their_contract(found: Found) -> None:
    contract = CONTRACTS[found.slot]
    for name, expected in contract.functions.items():
        assert parameters(vars(found.module)[name]) == expected, name
    for name in contract.constants:
        assert name in vars(found.module), name


@every_component
def test_the_file_says_what_it_is_and_where_it_comes_from(found: Found) -> None:
    doc = found.module.__doc__
    assert doc and len(doc.split()) > 10
    if CONTRACTS[found.slot].cites:
        assert CITATION.search(doc), "cite a paper (arXiv number, or authors and year), a URL or a `Source:`"


@every_component
def test_a_unit_test_of_its_name_exists(found: Found) -> None:
    last = found.package.rpartition(".")[2]
    names = [rf"test_{found.name}_{found.slot}", rf"test_({found.slot}|{last})_{found.name}(_\w+)?"]
    if sum(other.name == found.name for other in FOUND) == 1:
        names.append(rf"test_{found.name}")
    assert any(re.fullmatch("|".join(names), test) for test in TESTS), f"add tests/unit/test_{found.name}.py"


def test_no_component_brings_a_cluster_package_with_it() -> None:
    modules = sorted({found.module.__name__ for found in FOUND})
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        "print(*({'vllm', 'ray', 'deepspeed'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr


def test_the_engine_s_file_needs_no_vllm() -> None:
    code = (
        "import sys\nfrom rollout import vllm_engine\nfrom rlhf.sync import vllm_transfer\nprint('vllm' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]
