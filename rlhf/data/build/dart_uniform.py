"""Rejection sampling with as many right answers for every question: a stage samples on until it has them.

    k_i = k                     right answers wanted of question i (`rows`), all of them different texts

A question is given up after `samples` samples. Vanilla rejection sampling takes a fixed number of samples, so that easy
questions end up with most of the answers and hard ones with none. Rows are those of the builder `samples`.

Source: DART-Math (Tong et al. 2024, arXiv 2407.13690), "Uniform" of section 2.2; the paper takes k = 40 and up to 2048
samples. As its code does (https://github.com/hkust-nlp/dart-math, pipeline/curate.py) we keep the first k right ones
in the order of their sampling; unlike it, equal texts of a question count once, and not towards its quota.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer, Quota
from rlhf.core.types import Group, Json, Prompt
from rlhf.data.build import samples

CONTINUES = False
WHOLE_GROUPS = False
WRONG_TOO = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many answers, and when to give up."""

    rows: int = 40
    """Right answers per question (k)."""
    samples: int = 2048
    """Samples per question, at most."""

    def __post_init__(self) -> None:
        check(self.rows, self.samples)


def check(rows: int, samples: int) -> None:
    """Refuse quotas that cannot be met.

    Raises:
        ConfigError: naming the key.
    """
    if rows < 1:
        raise ConfigError("rows", f"{rows} answers are none", fix="use 40")
    if samples < rows:
        problem = f"{samples} samples of a question cannot hold {rows} right answers"
        raise ConfigError("samples", problem, fix=f"use {rows} or more, for hard questions many more")


def quotas(prompts: Sequence[Prompt], cfg: Config, continuer: Continuer) -> list[Quota]:
    """The same for every prompt."""
    return [Quota(rows=cfg.rows, samples=cfg.samples)] * len(prompts)


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the samples."""
    return await samples.build(groups, samples.Config(), continuer)
