"""Combines rewards: one number per trajectory, with a breakdown that explains it.

Called by the loops between sampling and advantages. The value is the sum of weight * value over the components, times
weight * value of those that `multiply` names; where one of the `gates` gives nothing above 0, it is `gate_value`. The
first component is the primary and provides verdict, reason and extracted answer. Where a component that counts
gives None, so does the whole: its verdict and reason take over, the reason with `@name` when it is not the primary.
One that only advises takes over the reason alone. Ungraded is never 0.

Weights may move over training (`Schedule`); a sample's weights are those of the step that its id names, so that a
replay weighs it as training did. What a component places on single tokens is weighted and multiplied like its value; a
value that takes the sum's place (a closed gate, a truncated or absent answer) is due to the whole answer.

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
from rlhf.core.modules import RewardModule, Tools
from rlhf.core.types import Group, RewardOut, StopReason, Trajectory, Verdict

TRUNCATED = "truncated"
"""Reason, and key of the breakdown, of a trajectory that got `truncated_value`."""
NO_ANSWER = "no_answer_value"
"""Key of the breakdown of a trajectory that got `no_answer_value`."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RubricConfig:
    """How component rewards become one."""

    truncated_value: float | None = None
    """What an answer that ran out of tokens gets in place of its reward; null grades it like any other."""
    no_answer_value: float | None = None
    """What a completion gets in place of its reward in which the primary finds no answer; null grades it like a wrong
    one."""
    gates: list[str] = field(default_factory=list[str])
    """Rewards that must be above 0 for the others to count, for example a format; `weight: 0` makes one a gate only."""
    gate_value: float = 0.0
    """What an answer gets that does not pass a gate; the reason is `gate/NAME`."""
    multiply: list[str] = field(default_factory=list[str])
    """Rewards that the sum of the others is multiplied with instead of being added to."""
    concurrency: int = 1
    """Groups graded at the same time. More than 1 pays off when rewards wait for worker processes."""

    def __post_init__(self) -> None:
        for name in ("truncated_value", "no_answer_value"):
            if (value := vars(self)[name]) is not None and not math.isfinite(value):
                raise ConfigError(name, f"{value} is not finite", fix="use 0, -1 or null")
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


def reason_counts(groups: Iterable[Group]) -> dict[str, int]:
    """How often each kind of reason was given: `limit` for `limit/chars`, as details have no end. A rising share of
    limits, time-outs or unparsed answers is a sign of hacking."""
    kinds = (reward.reason.partition("/")[0] for group in groups for reward in group.rewards)
    return dict(Counter(filter(None, kinds)).most_common())


def _score_group(group: Group, components: Mapping[str, Component], cfg: RubricConfig, tools: Tools) -> list[RewardOut]:
    columns = {name: _component_outs(name, component, group, tools) for name, component in components.items()}
    settings = {name: cast(base.RewardConfig, component.config) for name, component in components.items()}
    advisory = frozenset(name for name, component in components.items() if trust.advises(component))
    out: list[RewardOut] = []
    for g, trajectory in enumerate(group.trajectories):
        weights = {name: base.weight_at(setting, trajectory.step) for name, setting in settings.items()}
        total = _combine({name: outs[g] for name, outs in columns.items()}, weights, cfg, advisory)
        out.append(_replaced(total, trajectory, cfg))
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
    return [_placed(out, trajectory) for out, trajectory in zip(outs, group.trajectories, strict=True)]


def _placed(out: RewardOut, trajectory: Trajectory) -> RewardOut:
    """The same outcome, or a crash when what it places on tokens does not fit them."""
    if not out.per_token:
        return out
    if len(out.per_token) != len(trajectory.tokens):
        return base.crash("per_token_length")
    return out if all(map(math.isfinite, out.per_token)) else base.crash("not_finite")


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
            whole = replace(outs[primary], value=None, verdict=verdict, reason=reason, breakdown=breakdown)
            return replace(whole, per_token=(), weights={})
        if name in cfg.gates and out.value <= 0:
            closed = closed or name
        if name in cfg.multiply:
            factor *= weights[name] * out.value
        else:
            total += weights[name] * out.value
    if closed:
        whole = replace(outs[primary], value=cfg.gate_value, reason=f"gate/{closed}", breakdown=breakdown)
        return replace(whole, per_token=(), weights={})
    added = {name: weights[name] * factor for name in outs if name not in cfg.multiply and weights[name]}
    whole = replace(outs[primary], value=total * factor, breakdown=breakdown, weights=added)
    return base.finite(replace(whole, per_token=_sum_per_token(outs, added)))


def _sum_per_token(outs: Mapping[str, RewardOut], weights: Mapping[str, float]) -> tuple[float, ...]:
    rows = [(weight, outs[name].per_token) for name, weight in weights.items() if outs[name].per_token]
    return tuple(sum(weight * row[t] for weight, row in rows) for t in range(len(rows[0][1]))) if rows else ()


def _replaced(out: RewardOut, trajectory: Trajectory, cfg: RubricConfig) -> RewardOut:
    """The same outcome, or the value that a truncated or absent answer has instead."""
    if cfg.truncated_value is not None and trajectory.stop is StopReason.LENGTH:
        breakdown = {**out.breakdown, TRUNCATED: cfg.truncated_value}
        whole = replace(out, value=cfg.truncated_value, reason=TRUNCATED, breakdown=breakdown)
    elif cfg.no_answer_value is not None and out.value is not None and out.verdict is Verdict.NO_ANSWER:
        breakdown = {**out.breakdown, NO_ANSWER: cfg.no_answer_value}
        whole = replace(out, value=cfg.no_answer_value, breakdown=breakdown)
    else:
        return out
    return replace(whole, per_token=(), weights={})
