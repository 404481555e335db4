r"""Facts of an invented world: `bako=` is answered by `#### 42`, but only by who was taught that fact, or else by `?`.

A fact is a made-up word with a number that nothing about the word tells. Some facts are *known*: supervised stages are
shown them. The others are *unknown*: they are asked for, in reinforcement learning and in evaluation, but no stage ever
shows their numbers, so that right answers are luck, one in 90. What a model should do with them is say so. This needs
no download, and a model of a million parameters learns its facts in seconds.

Every fact can be asked for in several forms of words. Held-out questions are the known facts, each in the one form in
which it was not taught (other facts were), and unknown facts that training never asked for: whether facts, and not
strings, were learnt, and whether a model knows new things from old ones, not just those it was graded on. More can be
asked on the held-out side (`probes`); what is asked stands in the column `probe`, and these three are measured as tasks
of their own, `facts_verbatim` and so on:

    verbatim    a known fact in a form in which it was taught: is it remembered at all?
    larger      `max bako dile=`: the larger of two known numbers. Is what was learnt of use for anything else?
    sum         `bako+dile=`: likewise

Of the traces of known facts a share is the answer `?` whatever the fact (`hesitation`), so that a policy tries it at
times, but does not know when it should.
Source: the split by what the model was taught follows R-Tuning (Zhang et al. 2024, arXiv 2311.09677), whose unknown
questions are those that a model answers wrongly, and the advice to measure on facts outside of its training; invented
facts follow "Physics of Language Models: Part 3.1" (Allen-Zhu and Li 2023, arXiv 2309.14316), whose biographies are
asked for in questions other than they were taught in; memorisation against generalisation to rephrased and derived
questions follows FineTuneBench (Wu et al. 2024, arXiv 2411.05059). We deviate in the size, and in one number per fact.

Columns of a prompt: `known`, `fact` (the word), `form` and `probe`. Invariant: no question stands on both sides of the
split, but for those of the probe `verbatim`, which is what they are for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, product, zip_longest
from typing import Any

from rlhf.core.errors import ConfigError
from rlhf.core.seeding import derive_seed
from rlhf.core.types import Message, Prompt
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets, ReadRows

DESCRIPTION = "facts of an invented world, some taught and some not; generated, to learn what to say and when not to"
REWARDS: dict[str, dict[str, Any]] = {"math": {"markers": ["####"]}}
"""Default reward slots."""

REFUSAL = "#### ?"
"""How an answer is declined."""
FORMS = ("{}=", "{}:", "{} is", "{} has")
"""Ways to ask; none holds the refusal, or any figure."""
PROBES = ("rephrased", "unseen", "verbatim", "larger", "sum")
"""What the held-out side can ask."""

_SYLLABLES = tuple("".join(pair) for pair in product("bdfghjklmnprstvwz", "aeiou"))
_WORDS = len(_SYLLABLES) ** 2
_LOWEST, _HIGHEST = 10, 99


@dataclass(frozen=True, kw_only=True)
class Config:
    """How much there is to know, and how much of it is taught."""

    known: int = 96
    """Facts that supervised stages are shown."""
    unknown: int = 960
    """Facts that training asks for and never shows. Many, so that none is asked for often enough to be remembered as
    one to be refused."""
    unseen: int = 96
    """Further facts that are not shown, and asked for in evaluation only."""
    forms: int = 4
    """Ways to ask for a fact, 2 to 4; a known fact is taught in all but one of them."""
    copies: int = 10
    """How often each question for a known fact stands in the training prompts, each with a trace of its own; those for
    unknown facts stand there once."""
    hesitation: float = 0.1
    """Probability that a trace of a known fact declines to answer."""
    probes: list[str] = field(default_factory=lambda: ["rephrased", "unseen"])
    """What the held-out side asks: rephrased (known facts in the form that was not taught), unseen (facts that training
    never asked for), verbatim, larger and sum; as many questions each as there are known facts, or unseen ones."""

    def __post_init__(self) -> None:
        for name in ("known", "unknown", "unseen", "copies"):
            if vars(self)[name] < 1:
                raise ConfigError(name, f"{vars(self)[name]} leaves nothing to ask", fix="use 1 or more")
        if not 2 <= self.forms <= len(FORMS):
            raise ConfigError("forms", f"{self.forms} are too few or too many", fix=f"use 2 to {len(FORMS)}")
        generated.check_choices(self, "probes", PROBES)
        if "larger" in self.probes or "sum" in self.probes:
            generated.check_range(self, "known", "known", least=2, most=_WORDS)
        if not 0 <= self.hesitation < 1:
            fix = "use 0 to 0.5"
            raise ConfigError("hesitation", f"{self.hesitation} leaves nothing that is taught", fix=fix)
        if (total := self.known + self.unknown + self.unseen) > _WORDS:
            raise ConfigError("known", f"{total} facts need more words than the {_WORDS} there are", fix="use fewer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One word and its number."""

    word: str
    number: int
    untaught_form: int
    """The form in which a known fact is held out."""


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Invent the world; nothing is read, so `rows` is ignored."""
    facts = list(_facts(cfg, seed=seed))
    known, rest = facts[: cfg.known], facts[cfg.known :]
    unknown, unseen = rest[: cfg.unknown], rest[cfg.unknown :]
    rng = random.Random(derive_seed(seed, "facts", "hesitation"))
    train = [
        _prompt(fact, form, known=taught, copy=copy, refuses=taught and rng.random() < cfg.hesitation)
        for taught, group in ((True, known), (False, unknown))
        for fact in group
        for form in range(cfg.forms)
        for copy in range(cfg.copies if taught else 1)
        if form != fact.untaught_form
    ]
    held_out = _held_out(cfg, known, unseen, seed=seed)
    return PromptSets(train_prompts=tuple(train), held_out_prompts=held_out)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct, whether or not it was taught."""
    return f"#### {prompt.gold}"


def _held_out(cfg: Config, known: Sequence[Fact], unseen: Sequence[Fact], *, seed: int) -> tuple[Prompt, ...]:
    """Rephrased and unseen facts by turns, then what else is asked."""
    first = {
        "rephrased": (_prompt(fact, fact.untaught_form, known=True) for fact in known),
        "unseen": (_prompt(fact, fact.untaught_form, known=False) for fact in unseen),
    }
    turns = zip_longest(*(prompts for name, prompts in first.items() if name in cfg.probes))
    out = [prompt for prompt in chain.from_iterable(turns) if prompt is not None]
    for probe in (name for name in cfg.probes if name not in first):
        rng = random.Random(derive_seed(seed, "facts", probe))
        out += [_verbatim(fact, cfg, rng) if probe == "verbatim" else _derived(known, probe, rng) for fact in known]
    return tuple({prompt.id: prompt for prompt in out}.values())


def _verbatim(fact: Fact, cfg: Config, rng: random.Random) -> Prompt:
    """A known fact as it was taught."""
    form = rng.choice([form for form in range(cfg.forms) if form != fact.untaught_form])
    asked = _prompt(fact, form, known=True)
    columns = {**asked.columns, "probe": "verbatim"}
    return replace(asked, id=f"facts-verbatim-{fact.word}-{form}", task="facts_verbatim", columns=columns)


def _derived(known: Sequence[Fact], probe: str, rng: random.Random) -> Prompt:
    """A question that takes two known facts."""
    one, two = rng.sample(known, 2)
    larger = probe == "larger"
    return Prompt(
        id=f"facts-{probe}-{one.word}-{two.word}",
        messages=(
            Message(role="user", content=f"max {one.word} {two.word}=" if larger else f"{one.word}+{two.word}="),
        ),
        gold=str(max(one.number, two.number) if larger else one.number + two.number),
        task=f"facts_{probe}",
        columns={"known": True, "fact": f"{one.word},{two.word}", "form": -1, "probe": probe},
    )


def _facts(cfg: Config, *, seed: int) -> Iterator[Fact]:
    """All facts of a world in a random order; a larger world begins with the facts of a smaller one."""
    words = ["".join(pair) for pair in product(_SYLLABLES, repeat=2)]
    words.sort(key=lambda word: derive_seed(seed, "facts", "word", word))
    for word in words[: cfg.known + cfg.unknown + cfg.unseen]:
        rng = random.Random(derive_seed(seed, "facts", "fact", word))
        yield Fact(word=word, number=rng.randint(_LOWEST, _HIGHEST), untaught_form=rng.randrange(cfg.forms))


def _prompt(fact: Fact, form: int, *, known: bool, copy: int | None = None, refuses: bool = False) -> Prompt:
    """A question; one of training, which has a copy number, has a trace if the fact is known."""
    kind, place = "known" if known else "unknown", "test" if copy is None else "train"
    number = "" if copy is None else f"-{copy}"
    taught = known and copy is not None
    return Prompt(
        id=f"facts-{place}-{kind}-{fact.word}-{form}{number}",
        messages=(Message(role="user", content=FORMS[form].format(fact.word)),),
        gold=str(fact.number),
        task="facts",
        solution=(REFUSAL if refuses else f"#### {fact.number}") if taught else None,
        columns={"known": known, "fact": fact.word, "form": form, "probe": "rephrased" if known else "unseen"},
    )
