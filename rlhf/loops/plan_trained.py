"""What of a model each stage of a plan trains, counted on a model without weights, to which it is done as in a run.

So a plan also finds what would not fit the model: layers that are not there, a package that is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf.core.component import Component
from rlhf.core.errors import ConfigError
from rlhf.loops import generate, online
from rlhf.loops.settings import Experiment
from rlhf.models import adapters
from rlhf.runtime.memory import Trained


def counts(experiment: Experiment, folder: Path) -> Mapping[str, Trained]:
    """By stage, where less than the whole model trains, or more; critics under `STAGE.critic`.

    Args:
        folder: of the model that the run starts from.

    Raises:
        ConfigError: naming the stage's key.
    """
    found: dict[str, Trained] = {}
    for stage in experiment.stages:
        if isinstance(stage.config, generate.Config):
            continue
        chosen = {stage.name: stage.config.learner.trainable}
        if isinstance(stage.config, online.Config) and stage.config.needs_critic:
            chosen[f"{stage.name}.critic"] = stage.config.critic.learner.trainable
        for name, trainable in chosen.items():
            if trainable.name == "full":
                continue
            try:
                found[name] = _count(trainable, folder, trust=experiment.settings.model.trust_remote_code)
            except ConfigError as error:
                raise ConfigError(f"{name}.{error.where}", error.problem, fix=error.fix) from error
    return found


def _count(trainable: Component, folder: Path, *, trust: bool) -> Trained:
    quantizes = adapters.quantization(trainable) is not None
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    size = sum(parameter.numel() for parameter in model.parameters())
    adapters.prepare(model, trainable, seed=0)
    layers = adapters.adapted(model).values()
    return Trained(
        parameters=sum(parameter.numel() for parameter in adapters.trained(model).values()),
        added=sum(parameter.numel() for parameter in model.parameters()) - size,
        quantized=sum(layer.base_layer.weight.numel() for layer in layers) if quantizes else 0,
    )
