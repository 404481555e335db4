"""What rewards share that value an answer by another one's verdict: calling that verifier, and passing its word on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from rewards import base
from rlhf.core.component import Component
from rlhf.core.errors import ConfigError
from rlhf.core.modules import RewardModule, Tools
from rlhf.core.types import Group, RewardOut, Verdict


def check_weight(verifier: Component) -> None:
    """A weight inside a verifier has no effect.

    Raises:
        ConfigError: there is one.
    """
    config = cast(base.RewardConfig, verifier.config)
    if config.weight != 1 or config.schedule.to is not None:
        key, value = ("weight", config.weight) if config.weight != 1 else ("schedule.to", config.schedule.to)
        problem = f"{value} would change nothing, since only the verdict is used"
        raise ConfigError(f"verifier.{key}", problem, fix="set it beside `verifier`, not inside it")


def judge(group: Group, verifier: Component, tools: Tools) -> list[RewardOut]:
    """What the verifier says of a group.

    Raises:
        ConfigError: from the verifier, below the key `verifier`.
    """
    module = cast(RewardModule, verifier.module)
    try:
        outs = module.score(group, verifier.config, tools)
    except ConfigError as error:
        raise ConfigError(f"verifier.{error.where}", error.problem, fix=error.fix) from error
    return [base.finite(out) for out in outs]


def shaped(
    out: RewardOut, verifier: Component, *, worth: Callable[[bool], float], measured: Mapping[str, float | None]
) -> RewardOut:
    """The verifier's outcome with another value; what it could not grade has none.

    Args:
        worth: of an answer, given whether it is right.
        measured: goes into the breakdown, before the verifier's own.

    Raises:
        ConfigError: the verifier gives values without judging answers.
    """
    out = replace(out, per_token=())
    measured = {**measured, **{f"verifier/{key}": number for key, number in out.breakdown.items()}}
    if out.value is None:
        return replace(out, breakdown={"correct": None, **measured})
    if out.verdict is Verdict.SKIPPED:
        problem = f"'{verifier.name}' gives values but does not judge answers"
        raise ConfigError("verifier.name", problem, fix="use a reward that tells right from wrong, for example math")
    correct = out.verdict is Verdict.CORRECT
    return replace(out, value=worth(correct), breakdown={"correct": float(correct), **measured})
