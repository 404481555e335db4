"""Hierarchies: trees, binary trees, nested JSON and formulas, read, changed and compared.

    compact     node_depth|a>c,c>b,a>d|b=          a kind of question, the structure, what is asked about
                a 1\\nc 2\\nb 3\\n#### 3           steps where there are any, and the answer behind `####`

Four of the six scenarios of HiBench, 29 kinds of questions; its questions about code and papers need material that is
not made here. Answers are compared by what they are (reward `structure`): traversals and paths in their order, children
and ancestors as sets, changed trees by their edges, numbers within 0.01, formulas by how they are built up.

Source: Jiang et al. 2025, HiBench (arXiv 2503.00912), and its code, jzzzzh/HiBench; the files of this package say where
they deviate. Generally: changed trees are answered by their edges whatever the encoding of the question; names are
letters, or invented words in JSON; `noise` makes training answers wrong on purpose, each step with that probability,
and the answer if a step is wrong, or once for each further node or number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from rlhf.core import answers
from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets, ReadRows
from rlhf.tasks.generated import COMPACT, MARK, Item
from rlhf.tasks.hierarchy.asked import Asked, Question, Sizes
from rlhf.tasks.hierarchy.documents import DOCUMENTS
from rlhf.tasks.hierarchy.formulas import FORMULAS
from rlhf.tasks.hierarchy.trees import BINARY, MULTIPLE

DESCRIPTION = "questions about trees, binary trees, nested JSON and formulas (HiBench); generated"
REWARDS: dict[str, dict[str, Any]] = {"structure": {}}
"""Default reward slots."""

KINDS: dict[str, Question] = MULTIPLE | BINARY | DOCUMENTS | FORMULAS
"""Every kind of question."""
_FORM = (
    f"End with a line `{MARK} ` and the answer; list several with commas, write `none` for none, and write edges like"
    " `a -> b`."
)
_WHAT = {
    **dict.fromkeys(MULTIPLE, "tree"),
    **dict.fromkeys(BINARY, "binary tree"),
    **dict.fromkeys(DOCUMENTS, "JSON"),
    **dict.fromkeys(FORMULAS, "formula"),
}
_TRIES = 100


@dataclass(frozen=True, kw_only=True)
class Config(Sizes):
    """Which questions, about structures of what size."""

    kinds: list[str] = field(default_factory=lambda: list(MULTIPLE))
    """Kinds of questions; each prompt draws one. By default all about trees that are not binary."""
    noise: float = 0.0
    """Probability that a step of a training answer is wrong."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "kinds", KINDS)
        generated.check_shares(self, "noise")


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different questions.
    """

    def write(name: str, item: Item, rng: random.Random, trains: bool) -> Prompt:
        return generated.noisy_prompt("hierarchy", name, item, trains, lambda: generated.erring(item, cfg.noise, rng))

    fix = "raise task.max_levels, task.max_degree or task.max_operands, or name more kinds"
    return generated.build("hierarchy", cfg, seed=seed, draw=lambda rng: draw(cfg, rng), write=write, fix=fix)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct."""
    return generated.reference(prompt)


def draw(cfg: Config, rng: random.Random) -> Item:
    """A question with its answer."""
    for _ in range(_TRIES):
        kind = rng.choice(cfg.kinds)
        asked = KINDS[kind](rng, cfg)
        if asked is not None:
            return _item(kind, asked, cfg)
    raise ConfigError("task.kinds", "no question of this kind was found", fix="raise max_levels and max_degree")


def _item(kind: str, asked: Asked, cfg: Config) -> Item:
    text = asked.text if asked.text is not None else answers.text(asked.answer)
    return Item(
        question=_question(kind, asked, cfg),
        gold=answers.write_gold(asked.answer),
        answer=text,
        steps=asked.steps,
        difficulty=asked.size,
        columns={"kind": kind},
    )


def _question(kind: str, asked: Asked, cfg: Config) -> str:
    if cfg.style == COMPACT:
        return "|".join(part for part in (kind, asked.given, asked.about) if part) + "="
    return f"Given the {_WHAT[kind]} {asked.told}\n{asked.sentence}\n{_FORM}"
