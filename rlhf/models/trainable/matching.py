"""Parameters whose names match a pattern train; all others stay as they are, to the bit."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import PreTrainedModel

from rlhf.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which ones."""

    pattern: str = "."
    """Regular expression, searched for in each name, for example `layers\\.(2[4-9]|3\\d)\\.|lm_head`."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError("pattern", f"is no regular expression: {error}", fix="mend it") from error


def prepare(model: PreTrainedModel, cfg: Config, seed: int) -> None:
    """Set `requires_grad` on what matches.

    Raises:
        ConfigError: nothing does; says what names look like.
    """
    names = [name for name, _ in model.named_parameters()]
    if not any(re.search(cfg.pattern, name) for name in names):
        few = ", ".join((names[0], names[len(names) // 2], names[-1]))
        problem = f"'{cfg.pattern}' matches no parameter of {type(model).__name__}"
        raise ConfigError("learner.trainable.pattern", problem, fix=f"names are like {few}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(re.search(cfg.pattern, name) is not None)
