"""RISE: pairs of a right step and the same step with a subtle error in it, beside pairs of whole answers.

    full pair     question                       a right answer          a wrong one, both sampled
    edited pair   question, steps before it      a step of the former    that step with an error in it

For each question with a right and a wrong sample one full pair is drawn (`rlhf.data.build.pairs`). Every step of its
right answer gets an error of one of the kinds that it can take, chosen at random (`rlhf.data.edits`): the policy is
asked to edit it in, or rules do. Of the edits that pass, `edits` are kept. All pairs are learnt from alike: paper and
code take DPO with beta 0.4, the paper with the likelihood of chosen answers beside it (`rlhf.losses.dpo`).

Source: Xu et al. 2024, "Subtle Errors in Reasoning: Preference Learning via Error-injected Self-editing" (arXiv
2410.06638), and its code (https://github.com/kaishxu/RISE, commit 6a97ed5), whose choices are the defaults: one edit
per question, the last four sentences of a step, right answers that speak of mistakes left out, edits that give
themselves away left out, the box taken off the edited step. The paper also wants an edit's Levenshtein similarity to
its original within a threshold that it does not tell, and its code has no such filter: `min_similarity` and
`max_similarity` are off by default. We depart from the code in cutting steps by a separator instead of at "Step 2:", in
leaving out edits that change nothing, which it keeps, and in letting whole answers end with the end token that the
policy sampled; a step has none there and here.

What can go wrong: rules, and weak policies, change a step so that it is still right (the order of a sum); the pair then
teaches nothing true. Look at rows by `kind`. With `editor: policy` the model has to follow instructions, and takes as
many samples more as its right answers have steps; prompts are about twice as long as answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from rlhf.core import steps
from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.modules import Continuer
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Group, Json, Message, Prompt, Trajectory, Verdict
from rlhf.data import edits
from rlhf.data.build import pairs

CONTINUES = True
WHOLE_GROUPS = False
WRONG_TOO = True
_EDITORS = ("policy", "rules")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How errors are edited in."""

    editor: str = "policy"
    """Who edits: `policy`, the model itself, or `rules`, for models that do not follow instructions."""
    edits: int = 1
    """Edited pairs per question, at most."""
    separator: str = "\n"
    """What separates the steps of an answer."""
    sentences: int = 4
    """Show the policy, and edit, only so many sentences at the end of a step; 0 takes the whole step."""
    min_similarity: float = 0.0
    """Leave out edits less like their original than this: 1 less the Levenshtein distance over the longer length."""
    max_similarity: float = 1.0
    """Leave out edits more like it; an edit that changes nothing is always left out."""

    def __post_init__(self) -> None:
        if self.editor not in _EDITORS:
            fix = did_you_mean(self.editor, _EDITORS)
            raise ConfigError("editor", f"'{self.editor}' is not one of the choices", fix=fix)
        if self.edits < 1:
            raise ConfigError("edits", f"{self.edits} edits are none", fix="use 1, or build: {name: pairs}")
        if not self.separator:
            raise ConfigError("separator", "is empty", fix="use a line break, or two for paragraphs")
        if self.sentences < 0:
            raise ConfigError("sentences", f"{self.sentences} is negative", fix="use 4, or 0 for all")
        if not 0 <= self.min_similarity <= self.max_similarity <= 1:
            problem = f"{self.min_similarity} to {self.max_similarity} is no range of similarities"
            raise ConfigError("min_similarity", problem, fix="use 0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    """A step on its way to a pair."""

    source: Trajectory
    prompt: Prompt
    place: int
    kind: str
    before: str
    """The answer up to the step."""
    step: str
    """With its separator, where another step follows."""
    shown: str
    """Its end, which is edited."""

    @property
    def name(self) -> str:
        return f"{self.source.id}~edit{self.place}"


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the groups: of each question the full pair, then the edited ones."""
    drawn = [(group, pair) for group in map(_candid, groups) for pair in pairs.drawn(group, 1)]
    asked = [edit for group, (chosen, _) in drawn for edit in _edits(group.prompt, chosen, cfg)]
    made = await _by_policy(asked, continuer) if cfg.editor == "policy" else [_by_rule(edit) for edit in asked]
    rows: list[dict[str, Json]] = []
    for group, (chosen, rejected) in drawn:
        rows.append(pairs.row(group, chosen, rejected) | {"kind": "sampled"})
        passed = [
            _row(edit, text)
            for edit, text in zip(asked, made, strict=True)
            if edit.source is chosen and text is not None and _passes(edit, text, cfg)
        ]
        kept = Random(derive_seed(0, "rise", "kept", chosen.id)).sample(passed, min(cfg.edits, len(passed)))
        rows += kept
    return rows


def _candid(group: Group) -> Group:
    """The group without right answers that speak of mistakes."""
    question = group.prompt.messages[-1].content
    kept = [
        n
        for n, (t, reward) in enumerate(zip(group.trajectories, group.rewards, strict=True))
        if reward.verdict is not Verdict.CORRECT or not edits.gives_itself_away(t.text, question=question)
    ]
    trajectories, rewards = (tuple(side[n] for n in kept) for side in (group.trajectories, group.rewards))
    return replace(group, trajectories=trajectories, rewards=rewards)


def _edits(prompt: Prompt, source: Trajectory, cfg: Config) -> list[_Edit]:
    """Every step of an answer, with a kind of error for it."""
    found: list[_Edit] = []
    begin = 0
    for place, step in enumerate(steps.split(source.text, separator=cfg.separator)):
        end = step.end + len(cfg.separator) if step.end < len(source.text.rstrip()) else step.end
        text = source.text[begin:end]
        shown = edits.tail(text.strip(), sentences=cfg.sentences)
        kind = Random(derive_seed(0, "rise", "kind", source.id, place)).choice(edits.fitting(shown))
        found.append(
            _Edit(
                source=source,
                prompt=prompt,
                place=place,
                kind=kind,
                before=source.text[:begin],
                step=text,
                shown=shown,
            )
        )
        begin = end
    return found


async def _by_policy(asked: Sequence[_Edit], continuer: Continuer) -> list[str | None]:
    prompts: list[Prompt] = []
    for edit in asked:
        question = edit.prompt.messages[-1].content
        content = edits.instruction(edit.kind, question=question, before=edit.before, step=edit.shown)
        prompts.append(Prompt(id=edit.name, messages=(Message(role="user", content=content),), gold="", task="edit"))
    return [edits.answered(text) for text in await continuer.ask(prompts, begin=edits.BEGIN)]


def _by_rule(edit: _Edit) -> str | None:
    return edits.by_rule(edit.kind, edit.shown, Random(derive_seed(0, "rise", "rule", edit.name)))


def _passes(edit: _Edit, text: str, cfg: Config) -> bool:
    if text.strip() == edit.shown.strip():
        return False
    if edits.gives_itself_away(text, question=edit.prompt.messages[-1].content):
        return False
    return cfg.min_similarity <= edits.similarity(edit.shown, text) <= cfg.max_similarity


def _row(edit: _Edit, text: str) -> dict[str, Json]:
    head, _, rest = edit.step.rpartition(edit.shown)
    return {
        "prompt_id": edit.prompt.id,
        "messages": edit.prompt.chat,
        "beginning": edit.before,
        "chosen": edit.step,
        "rejected": edits.unboxed(head + text.strip() + rest),
        "open": True,
        "gold": edit.prompt.gold,
        "chosen_id": edit.source.id,
        "rejected_id": edit.name,
        "policy_version": edit.source.policy_version,
        "kind": edit.kind,
    }
