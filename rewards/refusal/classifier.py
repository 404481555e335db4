"""Whether a text declines to answer, by a trained classifier: any sequence classification model in a folder.

Used by `rewards.refusal`. The model is served by a worker process of its own (`rewards.served`); what it reads is the
answer, cut to its context from the front, since a refusal is said at the end. Its probability of `label` is compared
with `threshold`. `rewards.refusal.train` makes such a model from labelled texts.

A classifier can be talked to by what it reads. An answer that is taken for a refusal is graded as nothing else, so that
a wrong answer gains by upsetting it, and a right one loses: a rising rate of refusals in a model that still answers
shows it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import cast

from rewards.base import WorkerError
from rewards.served import ServedModel, Serving
from rlhf.core.errors import ConfigError

_LOAD = "rewards.refusal.classifier_model:load"
_CLASSIFY = "rewards.refusal.classifier_model:classify"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Which model tells a refusal from an answer."""

    model: str = ""
    """Folder of a sequence classification model; empty goes by phrases."""
    label: str = "refused"
    """Which of its labels (`id2label` of its config.json) says that an answer is declined."""
    threshold: float = 0.5
    """From which probability of that label."""
    timeout_s: float = 60.0
    """Deadline of one batch."""
    serving: Serving = field(default_factory=Serving)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError("threshold", f"{self.threshold} is not in (0, 1)", fix="use 0.5")
        if not 0 < self.timeout_s < float("inf"):
            raise ConfigError("timeout_s", f"{self.timeout_s} is no time", fix="use a positive number of seconds")
        if self.model and not self.label:
            raise ConfigError("label", "is empty", fix="name one of the model's labels, for example refused")


@cache
def served(folder: Path, cfg: Serving) -> ServedModel:
    """The classifier of this process for a folder."""
    return ServedModel(folder, cfg, load=_LOAD, run=_CLASSIFY)


def probabilities(texts: Sequence[str], cfg: Classifier) -> list[float | TimeoutError | WorkerError]:
    """The probability that each text declines to answer, or why there is none.

    Raises:
        ConfigError: the folder holds no such model, or the model has no such label.
    """
    model = served(Path(cfg.model), cfg.serving)
    batches = -(-len(texts) // cfg.serving.batch_size)
    found = model.ask(
        list(texts),
        settings={"label": cfg.label},
        timeout_s=cfg.timeout_s,
        deadline=time.monotonic() + batches * cfg.timeout_s,
    )
    for outcome in found:
        if isinstance(outcome, WorkerError) and outcome.exception == "LookupError":
            raise ConfigError("label", outcome.message, fix="name one of its labels")
    return [cast("float | TimeoutError | WorkerError", outcome) for outcome in found]
