"""Combines rewards: one number per trajectory, with a breakdown that explains it.

Called by the loops between sampling and advantages. The value is the sum of weight * value over the components, times
weight * value of those that `multiply` names; where one of the `gates` gives nothing above 0, it is `gate_value`. The
first component is the primary and provides verdict, reason and extracted answer. Where a component that counts
gives None, so does the whole: its verdict and reason take over, the reason with `@name` when it is not the primary.
One that only advises takes over the reason alone. Ungraded is never 0.

Boundary: a component that raises costs its group (`crash/<ExceptionName>`, counted and logged), never the run. Only a
`UserError`, which says what to mend in the config, goes through.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import cast

from rewards import base, trust
from rlhf.core.component import Component
from rlhf.core.errors import ConfigError, UserError
from rlhf.core.protocols import RewardModule, Tools
from rlhf.core.types import Group, RewardOut, StopReason, Trajectory, Verdict

TRUNCATED = "truncated"
"""Reason, and key of the breakdown, of a trajectory that got `truncated_value`."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RubricConfig:
    """How component rewards become one."""

    truncated_value: float | None = None
    """What an answer that ran out of tokens gets in place of its reward; null grades it like any other."""
    gates: list[str] = field(default_factory=list[str])
    """Rewards that must be above 0 for the others to count, for example a format; `weight: 0` makes one a gate only."""
    gate_value: float = 0.0
    """What an answer gets that does not pass a gate; the reason is `gate/NAME`."""
    multiply: list[str] = field(default_factory=list[str])
    """Rewards that the sum of the others is multiplied with instead of being added to."""
    concurrency: int = 1
    """Groups graded at the same time. More than 1 pays off when rewards wait for worker processes."""

    def __post_init__(self) -> None:
        if self.truncated_value is not None and not math.isfinite(self.truncated_value):
            raise ConfigError("truncated_value", f"{self.truncated_value} is not finite", fix="use 0, -1 or null")
        if not math.isfinite(self.gate_value):
            raise ConfigError("gate_value", f"{self.gate_value} is not finite", fix="use 0, or -1")
        if both := sorted({*self.gates} & {*self.multiply}):
            fix = "name it in one of them"
            raise ConfigError("multiply", f"'{both[0]}' is a gate too, which is a product with 0 or 1", fix=fix)
        if self.concurrency < 1:
            raise ConfigError("concurrency", f"{self.concurrency} grades nothing", fix="use 1 or more")


def score_groups(
    groups: Sequence[Group], components: Mapping[str, Component], cfg: RubricConfig, tools: Tools
) -> list[Group]:
    """Grade every trajectory.

    Args:
        groups: what was sampled; earlier rewards are replaced.
        components: rewards by name, the primary first.
        cfg: how to combine them.
        tools: killable workers for the rewards that need them.

    Returns:
        The groups in the same order, `rewards` aligned with `trajectories`.

    Raises:
        ConfigError: there are no components.
    """
    if not components:
        raise ConfigError("rewards", "names no reward", fix="add one, for example rewards.math={}")

    def graded(group: Group) -> Group:
        return replace(group, rewards=tuple(_score_group(group, components, cfg, tools)))

    if cfg.concurrency == 1:
        return [graded(group) for group in groups]
    with ThreadPoolExecutor(cfg.concurrency, thread_name_prefix="rubric") as threads:
        return list(threads.map(graded, groups))


def verdict_counts(groups: Iterable[Group]) -> dict[Verdict, int]:
    """How often each verdict was given; verdicts that were not given count 0, so that their series have no gaps."""
    found = Counter(reward.verdict for group in groups for reward in group.rewards)
    return {verdict: found[verdict] for verdict in Verdict}


def verified(out: RewardOut) -> bool:
    """Whether the verdict is that of a verifier that read the answer, so that an accuracy may count it; also where only
    an advisory reward failed, which left the answer without a value."""
    if out.value is not None:
        return True
    read = (Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.UNPARSABLE)
    return out.verdict in read and next(iter(out.breakdown.values()), None) is not None


def reason_counts(groups: Iterable[Group]) -> dict[str, int]:
    """How often each reason was given. A rising share of limits, time-outs or unparsed answers is a sign of hacking."""
    return dict(Counter(reward.reason for group in groups for reward in group.rewards).most_common())


def _score_group(group: Group, components: Mapping[str, Component], cfg: RubricConfig, tools: Tools) -> list[RewardOut]:
    columns = {name: _component_outs(name, component, group, tools) for name, component in components.items()}
    weights = {name: cast(base.RewardConfig, component.config).weight for name, component in components.items()}
    advisory = frozenset(name for name, component in components.items() if trust.advises(component))
    out: list[RewardOut] = []
    for g, trajectory in enumerate(group.trajectories):
        total = _combine({name: outs[g] for name, outs in columns.items()}, weights, cfg, advisory)
        out.append(_truncate(total, trajectory, cfg))
    return out


def _component_outs(name: str, component: Component, group: Group, tools: Tools) -> list[RewardOut]:
    module = cast(RewardModule, component.module)
    size = len(group.trajectories)
    try:
        outs = [base.finite(out) for out in module.score(group, component.config, tools)]
    except UserError:
        raise
    except Exception as error:
        _LOG.warning("reward '%s' failed on prompt '%s'", name, group.prompt.id, exc_info=True)
        return [base.crash(type(error).__name__)] * size
    if len(outs) != size:
        _LOG.warning("reward '%s' gave %d outcomes for %d samples of '%s'", name, len(outs), size, group.prompt.id)
        return [base.crash("wrong_length")] * size
    return outs


def _combine(
    outs: Mapping[str, RewardOut], weights: Mapping[str, float], cfg: RubricConfig, advisory: frozenset[str]
) -> RewardOut:
    primary = next(iter(outs))
    breakdown: dict[str, float | None] = {name: out.value for name, out in outs.items()}
    for name, out in outs.items():
        breakdown |= {f"{name}/{key}": value for key, value in out.breakdown.items()}
    total, factor, closed = 0.0, 1.0, ""
    # Opinions last, so that a verifier that failed is named before them.
    for name, out in sorted(outs.items(), key=lambda item: item[0] in advisory):
        if weights[name] == 0 and name not in cfg.gates:
            continue
        if out.value is None:
            reason = out.reason if name == primary else f"{out.reason}@{name}"
            verdict = outs[primary].verdict if name in advisory else out.verdict
            return replace(outs[primary], value=None, verdict=verdict, reason=reason, breakdown=breakdown)
        if name in cfg.gates and out.value <= 0:
            closed = closed or name
        if name in cfg.multiply:
            factor *= weights[name] * out.value
        else:
            total += weights[name] * out.value
    if closed:
        return replace(outs[primary], value=cfg.gate_value, reason=f"gate/{closed}", breakdown=breakdown)
    return base.finite(replace(outs[primary], value=total * factor, breakdown=breakdown))


def _truncate(out: RewardOut, trajectory: Trajectory, cfg: RubricConfig) -> RewardOut:
    if cfg.truncated_value is None or trajectory.stop is not StopReason.LENGTH:
        return out
    breakdown = {**out.breakdown, TRUNCATED: cfg.truncated_value}
    return replace(out, value=cfg.truncated_value, reason=TRUNCATED, breakdown=breakdown)
