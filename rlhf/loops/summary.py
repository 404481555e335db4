"""What a run leaves behind besides curves: the environment it started in and the numbers it ended with."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rlhf.core.run_folder import RunFolder, write_whole
from rlhf.data import sources
from rlhf.learner import checkpoint
from rlhf.loops import generate, offline, online
from rlhf.loops.settings import Experiment
from rlhf.loops.stage import Progress
from rlhf.models import load
from rlhf.report.html import write_report
from rlhf.report.stats import Interval

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "omegaconf", "numpy", "scipy", "sympy", "datasets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`summary.json`. Accuracies are of sampled held-out answers of the primary task, before and after the last stage;
    None where no answer could be graded. `stages` has those of the other tasks too."""

    base_accuracy: Interval | None
    final_accuracy: Interval | None
    steps: int
    tokens: int
    seconds: dict[str, float]
    peak_memory_bytes: int
    stages: list[dict[str, Any]]
    stopped: str
    """Why the run was given up before its last step; empty where it was not."""


def environment(experiment: Experiment, threads: int) -> dict[str, Any]:
    """Everything that is not in the config and could change the result."""
    settings = experiment.settings
    names = [stage.name for stage in experiment.stages]
    offline_configs = [(s.name, s.config) for s in experiment.stages if isinstance(s.config, offline.Config)]
    read = dict.fromkeys(settings.task.module.sources(settings.task.config), "task")
    read |= {found: f"{name}.data" for name, cfg in offline_configs if (found := offline.source(cfg, names))}
    read |= {found: f"{name}.held_out.path" for name, cfg in offline_configs if (found := cfg.held_out.path)}
    known = [(s.name, s.config.boundary.source) for s in experiment.stages if isinstance(s.config, online.Config)]
    read |= {found: f"{name}.boundary.source" for name, found in known if found and found not in names}
    known = [(s.name, s.config.curriculum.profile) for s in experiment.stages if isinstance(s.config, online.Config)]
    read |= {found: f"{name}.curriculum.profile" for name, found in known if found and found not in names}
    built = [(s.name, generate.sources(s.config)) for s in experiment.stages if isinstance(s.config, generate.Config)]
    read |= {found: f"{name}.build.{key}" for name, of in built for key, _, found in of if found not in names}
    return {
        "git": _git(Path(__file__).parent),
        "python": sys.version.split()[0],
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "platform": platform.platform(),
        "cpu_threads": threads,
        "cpu_count": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "data": {source: sources.fingerprint(source, where=where) for source, where in read.items()},
        "trust_remote_code": settings.model.trust_remote_code,
        "config_file": experiment.loaded.path.name,
    }


def write(folder: RunFolder, progress: Progress) -> Summary:
    """Write `summary.json` of a finished run."""
    ends = [_interval(entry) for entry in progress.accuracy]
    result = Summary(
        base_accuracy=ends[-2] if len(ends) > 1 else None,
        final_accuracy=ends[-1] if ends else None,
        steps=progress.step,
        tokens=progress.tokens,
        seconds=progress.seconds,
        peak_memory_bytes=peak_memory_bytes(),
        stages=progress.accuracy,
        stopped=progress.stopped,
    )
    write_whole(folder.summary, json.dumps(asdict(result), indent=1))
    return result


def report(folder: RunFolder) -> Path:
    """Write `report.html` of a run, finished or not; tokens are shown as text where the run has a tokenizer yet."""
    saved = [folder.checkpoints / f"step_{step}" for step in reversed(checkpoint.steps(folder.checkpoints))]
    home = next((place for place in (*saved, folder.model) if (place / "tokenizer_config.json").exists()), None)
    if home is None or not folder.environment.exists():
        return write_report(folder.path)
    trusted = json.loads(folder.environment.read_text(encoding="utf-8"))["trust_remote_code"]
    tokenizer = load.load_tokenizer(home, trust_remote_code=trusted)
    return write_report(folder.path, token_text=lambda token: str(tokenizer.decode([token])))


def peak_memory_bytes() -> int:
    """Most memory that this process has held: of the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _interval(entry: dict[str, Any]) -> Interval | None:
    if not entry["n"]:
        return None
    return Interval(mean=entry["mean"], low=entry["low"], high=entry["high"], n=entry["n"])


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(inside: Path) -> str | None:
    """Commit of the code, with `+changes` when the work tree differs; None outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=inside, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=inside, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
