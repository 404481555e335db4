"""Rotary positions for longer contexts: another base, or interpolated positions, in the config of the model.

A pair j of d dimensions turns by m b^(-2j/d) at position m (RoPE, Su et al. 2021, arXiv 2104.09864). To read further
than a model was trained to, either

    base      b is raised, so that all pairs turn more slowly: "adjusted base frequency", Xiong et al. 2023
              (arXiv 2309.16039, section 2: 10,000 to 500,000 for 4 times the context), continued by training
    scale     m becomes m / scale: position interpolation, Chen et al. 2023 (arXiv 2306.15595); the `linear` kind of
              transformers, which multiplies the frequencies by 1 / scale, the same thing

Nothing in the weights changes. What is asked for is written into the config.json from which every part of a run opens
its model (`rope_parameters` and `max_position_embeddings`), so that trainer, engines of any kind, checkpoints and what
loads them later agree without being told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from rlhf.core.errors import ConfigError

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """How a model's rotary positions are changed before a run; by default they are not."""

    base: float | None = None
    """Base of the frequencies, for example 500000; null leaves it."""
    scale: float | None = None
    """Positions are divided by this, so that as much longer sequences look no longer than before; null leaves them."""
    positions: int | None = None
    """Longest sequence, prompt and answer together; null is what the model has, times `scale`."""

    def __post_init__(self) -> None:
        if self.base is not None and not (math.isfinite(self.base) and self.base > 1):
            raise ConfigError("base", f"{self.base} is no base of frequencies", fix="use 500000, or null to leave it")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale >= 1):
            raise ConfigError("scale", f"{self.scale} does not stretch the context", fix="use 2 or 4, or null")
        if self.positions is not None and self.positions < 2:
            problem = f"{self.positions} leaves no room for a prompt and an answer"
            raise ConfigError("positions", problem, fix="use the longest prompt plus the longest answer, or null")

    @property
    def on(self) -> bool:
        """Whether anything is to be changed."""
        return (self.base, self.scale, self.positions) != (None, None, None)


def apply(cfg: RopeConfig, config: PreTrainedConfig) -> None:
    """Change a model's config in place.

    Raises:
        ConfigError: the model has no rotary positions, several kinds of them, or positions that are scaled already.
    """
    text: Any = config.get_text_config()
    found = vars(text).get("rope_parameters")
    kind = f"{config.model_type} models"
    if not found:
        fix = "leave model.rope out, or use a model with RoPE (Llama, Qwen, Mistral, …)"
        raise ConfigError("model.rope", f"{kind} have no rotary positions", fix=fix)
    if "rope_theta" not in found:
        fix = "change that model's config.json by hand, as its authors advise"
        raise ConfigError("model.rope", f"{kind} have several kinds of rotary positions", fix=fix)
    before = found.get("rope_type", "default")
    if cfg.scale is not None and before != "default":
        problem = f"positions are scaled already, by '{before}' {found.get('factor', '')}".rstrip()
        raise ConfigError("model.rope.scale", problem, fix="leave it out, or start from the model before that")
    if cfg.base is not None:
        found = found | {"rope_theta": float(cfg.base)}
    if cfg.scale is not None:
        found = found | {"rope_type": "linear", "factor": float(cfg.scale)}
    text.rope_parameters = found
    longer = round(text.max_position_embeddings * (cfg.scale or 1.0))
    text.max_position_embeddings = cfg.positions or longer


def changed(cfg: RopeConfig, source: Path, folder: Path, *, trust_remote_code: bool) -> Path:
    """A model with the config changed and everything else, weights included, linked to where it is.

    Args:
        source: the model.
        folder: where the changed one is to lie; a new folder.

    Returns:
        `folder`.
    """
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, local_files_only=True)
    apply(cfg, config)
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and path.name != CONFIG:
            (folder / path.name).symlink_to(path.resolve())
    config.save_pretrained(folder)
    return folder
