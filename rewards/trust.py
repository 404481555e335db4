"""Who may decide: rewards that only advise are kept out of every place where they could overrule the others.

Some rewards are opinions that the graded text can sway, a judge above all. What such a reward says may be added to what
an answer earns. It may not come first (the first reward gives the verdict), be a gate or a factor (which take away what
others gave), nor stand as another reward's verifier. When it fails, the answer has no value but keeps the verdict of
the verifier, so that no answer can leave an accuracy by upsetting a judge. `RewardConfig.advisory` says which rewards
these are; `check` is called on the config of a run, before anything starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from rewards.base import RewardConfig
from rlhf.core.component import Component
from rlhf.core.errors import ConfigError


def advises(component: Component) -> bool:
    """Whether a reward only advises."""
    config = component.config
    return isinstance(config, RewardConfig) and config.advisory


def check(rewards: Mapping[str, Component], *, gates: Sequence[str], multiply: Sequence[str]) -> None:
    """Refuse what would let an advisory reward decide.

    Raises:
        ConfigError: naming the place, and what to do.
    """
    for place, (label, component) in enumerate(rewards.items()):
        if place == 0 and advises(component):
            raise _refusal(f"rewards.{label}", component, "is the first reward, whose verdict is that of the answer")
        for path, inner in _inner(component, f"rewards.{label}"):
            if advises(inner):
                raise _refusal(path, inner, "would say for another reward what is right")
    for key, names in (("gates", gates), ("multiply", multiply)):
        for name in names:
            if name in rewards and advises(rewards[name]):
                raise _refusal(f"rubric.{key}", rewards[name], "could take away what a verifier gave")


def _inner(component: Component, path: str) -> Iterator[tuple[str, Component]]:
    """The rewards that a reward holds, at any depth."""
    for name, value in cast("Mapping[str, object]", vars(component.config)).items():
        if isinstance(value, Component):
            yield f"{path}.{name}", value
            yield from _inner(value, f"{path}.{name}")


def _refusal(where: str, component: Component, problem: str) -> ConfigError:
    fix = f"let a verifier decide and add '{component.name}' to it, or take the risk with its key `decides: true`"
    return ConfigError(where, f"'{component.name}' only advises, and {problem}", fix=fix)
