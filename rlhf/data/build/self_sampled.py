r"""One row per question with all that the policy found: right answers, and right beginnings of wrong ones.

    completions    the prompt's worked solution, then every right sample, equal texts once
    beginnings     of each wrong sample the longest beginning, in whole steps, from which a right answer was reached;
                   what another beginning or answer begins with is left out

Source: Ni et al. 2022, "Learning Math Reasoning from Self-Sampled Correct and Partially-Correct Solutions" (arXiv
2205.14318), section 3. There a program's beginning is partially correct when its variables are in a state that a known
right program reaches, which is looked up; text has no such state, so that here completions decide, as for the hard
labels of `rlhf.data.build.step_labels`: `completions` answers are sampled from the end of a step, and one that is right
makes it right. The first wrong step is searched by halving. The paper's buffer grows as its model trains; here a stage
samples and a later one learns, and a config may repeat the two.

Give the stage `select: all`, since wrong samples have to come this far, and the stage that learns from it `examples:
{name: answers}`. Every text has the id of its sample beside it; null is the worked solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf.core.errors import ConfigError
from rlhf.core.modules import Continuer
from rlhf.core.steps import split
from rlhf.core.types import Group, Json, Verdict
from rlhf.data.build import step_labels

CONTINUES = True
WHOLE_GROUPS = False
WRONG_TOO = False


@dataclass(frozen=True, kw_only=True)
class Config:
    """What counts as an answer."""

    solution: bool = True
    """Take the worked solution of a prompt that has one. Leave it out where these may be wrong."""
    completions: int = 4
    """Answers sampled from the end of a step to see whether it is right; 0 takes no beginnings."""
    separator: str = "\n"
    """What separates the steps of an answer."""

    def __post_init__(self) -> None:
        if self.completions < 0:
            raise ConfigError("completions", f"{self.completions} is negative", fix="use 4, or 0 for whole ones only")
        if not self.separator:
            raise ConfigError("separator", "is empty", fix="use a line break, or two for paragraphs")


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions; none for a question without any answer."""
    beginnings = await _beginnings(groups, cfg, continuer) if cfg.completions else {}
    rows = [_row(group, cfg, beginnings) for group in groups]
    return [row for row in rows if row["completions"] or row["beginnings"]]


async def _beginnings(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> dict[str, str]:
    """Right beginnings by the id of their sample."""
    wrong = [_without_right(group) for group in groups]
    labels = step_labels.Config(separator=cfg.separator, completions=cfg.completions, search="binary")
    texts = {t.id: t.text for group in wrong for t in group.trajectories}
    found: dict[str, str] = {}
    for row in await step_labels.build(wrong, labels, continuer):
        name, judged = str(row["sample_id"]), row["labels"]
        assert isinstance(judged, list)
        if good := sum(label == 1.0 for label in judged):
            end = split(texts[name], separator=cfg.separator)[good - 1].end
            # With what separates it from the next step: it is no whole answer.
            found[name] = texts[name][:end] + cfg.separator
    return found


def _without_right(group: Group) -> Group:
    wrong = [n for n, reward in enumerate(group.rewards) if reward.verdict is not Verdict.CORRECT]
    return replace(
        group,
        trajectories=tuple(group.trajectories[n] for n in wrong),
        rewards=tuple(group.rewards[n] for n in wrong),
    )


def _row(group: Group, cfg: Config, beginnings: dict[str, str]) -> dict[str, Json]:
    answers: dict[str, str | None] = {}
    if cfg.solution and group.prompt.solution is not None:
        answers[group.prompt.solution] = None
    for t, reward in zip(group.trajectories, group.rewards, strict=True):
        if reward.verdict is Verdict.CORRECT and t.text:
            answers.setdefault(t.text, t.id)
    begun: dict[str, str] = {}
    for t in group.trajectories:
        if t.id in beginnings:
            begun.setdefault(beginnings[t.id], t.id)
    longer = [*answers, *begun]
    begun = {text: name for text, name in begun.items() if not any(o != text and o.startswith(text) for o in longer)}
    return {
        "prompt_id": group.prompt.id,
        "messages": group.prompt.chat,
        "completions": list(answers),
        "beginnings": list(begun),
        "gold": group.prompt.gold,
        "completion_ids": list(answers.values()),
        "beginning_ids": list(begun.values()),
        "policy_version": max((t.policy_version for t in group.trajectories), default=None),
    }
