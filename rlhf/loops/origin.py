"""Where the rows of a generated dataset come from: what stands in their column `origin`, whatever builder made them.

    {"build": "samples", "stage": "draw", "step": 3, "run_seed": 0, "policy_version": 9, "model": "9f…", "config": "5…"}

`policy_version` counts the optimizer steps of the run behind the weights that the stage samples with. `model` and
`config` are the first 16 digits of SHA-256 hashes: of these weights (of the hashes of their files, in the order of
their names), and of the run's `config.yaml` without its block `run`, as the name of a run changes no row. With the name
of a sample, which builders put into their rows, the run's seed and step, a sample can be made again on its own. All of
it follows from what the stage began with, so that a resumed run writes the same rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rlhf.core.types import Json
from rlhf.loops.stage import Stage
from rlhf.models.stored import StoredWeights

DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Of the rows of one stage."""

    build: str
    stage: str
    run_seed: int
    policy_version: int
    model: str
    config: str

    def of_step(self, step: int) -> dict[str, Json]:
        """The column of a row that was made in this step."""
        return {
            "build": self.build,
            "stage": self.stage,
            "step": step,
            "run_seed": self.run_seed,
            "policy_version": self.policy_version,
            "model": self.model,
            "config": self.config,
        }


def of(stage: Stage, *, build: str) -> Origin:
    """That of a stage; reads all of its weights once.

    Args:
        build: name of the builder.
    """
    return Origin(
        build=build,
        stage=stage.name,
        run_seed=stage.seed,
        policy_version=stage.progress.version,
        model=weights(stage.began),
        config=stage.config,
    )


def weights(folder: Path) -> str:
    """What identifies the weights in a folder."""
    hashes = StoredWeights(folder).hashes()
    return hashlib.sha256("".join(hashes[name] for name in sorted(hashes)).encode()).hexdigest()[:DIGITS]
