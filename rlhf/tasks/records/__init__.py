"""Records of a table: errors found, values filled in, attributes and entities matched.

    detect     detect|city:alba,region:south,zip:31207|region=      alba north 31\\n#### yes
    impute     impute|item:milk,unit:?|unit=                        milk litre\\n#### litre
    schema     schema|zip:where mail is sorted to|postcode:…=       #### yes
    entity     entity|name:maro lip,city:alba|name:m. lip,…=        #### yes

The four tasks of data preprocessing, on an invented world (`rlhf.tasks.records.world`) whose rules hold for every seed:
a city lies in one region and has its zip codes, a total is a sum, an id ends in a check digit, an item has its unit.
Half of the questions of yes and no are answered yes (`positive`); their measure is F1, that of filling in is accuracy.
An error is a typo, a value of another record (a violation), or no value at all (implausible). A duplicate of an entity
has abbreviations, typos, lost and moved attributes (`edits`); what is no duplicate shares some attributes (`shared`).

Source: Zhang et al. 2023, Jellyfish (arXiv 2312.01678), for the four tasks, serialised records, knowledge as hints and
the measures; the data sets are not used, nor is the wording. With `noise` training answers are wrong on purpose, with
that probability for each attribute in the question.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf.core import answers
from rlhf.core.answers import Answer, Kind
from rlhf.core.errors import ConfigError
from rlhf.core.types import Prompt
from rlhf.tasks import generated
from rlhf.tasks.common import PromptSets, ReadRows
from rlhf.tasks.generated import COMPACT, MARK, GeneratedConfig, Item
from rlhf.tasks.records import world
from rlhf.tasks.records.world import CONCEPTS, GROUPS, RULES, Record

DESCRIPTION = "records of a table: error detection, imputation, schema and entity matching; generated"
REWARDS: dict[str, dict[str, Any]] = {"structure": {}}
"""Default reward slots."""

ERRORS = ("typo", "violation", "implausible")
_DEPENDENT = {"place": ("region", "zip"), "sum": ("total",), "check": ("id",), "goods": ("unit",)}
_IMPUTED = {"place": "region", "sum": "total", "goods": "unit"}
_IMPLAUSIBLE = ("-1", "none", "n/a", "xx")
_FORM = f"End with a line `{MARK} ` and {{}}."


@dataclass(frozen=True, kw_only=True)
class Config(GeneratedConfig):
    """Which tasks, and how hard they are."""

    kinds: list[str] = field(default_factory=lambda: ["detect", "impute", "schema", "entity"])
    """Of detect, impute, schema and entity; each prompt draws one."""
    min_groups: int = 1
    """Fewest groups of attributes of a record, of which one is asked about."""
    max_groups: int = 2
    """Most groups, up to 4."""
    errors: list[str] = field(default_factory=lambda: list(ERRORS))
    """What goes wrong in records: typo, violation, implausible."""
    hints: bool = False
    """Put the rule that decides into the question."""
    positive: float = 0.5
    """Share of questions of yes and no that are answered yes."""
    edits: int = 2
    """Changes in the duplicate of an entity."""
    shared: int = 2
    """Attributes, up to 3, that what is no duplicate has in common with the entity."""
    noise: float = 0.0
    """Probability, for each attribute in a question, that the training answer is wrong."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "kinds", _KINDS)
        generated.check_choices(self, "errors", ERRORS)
        generated.check_range(self, "min_groups", "max_groups", least=1, most=len(GROUPS))
        generated.check_shares(self, "positive", "noise")
        for name, most in (("edits", 6), ("shared", 3)):
            if not 0 <= vars(self)[name] <= most:
                raise ConfigError(name, f"{vars(self)[name]} is not in 0 to {most}", fix="use 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question before it is worded."""

    given: tuple[Mapping[str, str], ...]
    about: str
    sentence: str
    answer: Answer
    steps: tuple[str, ...] = ()
    hint: str = ""


def build(cfg: Config, *, seed: int, rows: ReadRows | None = None) -> PromptSets:
    """Generate both sets; nothing is read, so `rows` is ignored.

    Raises:
        ConfigError: there are too few different questions.
    """

    def write(name: str, item: Item, rng: random.Random, trains: bool) -> Prompt:
        return generated.noisy_prompt("records", name, item, trains, lambda: generated.erring(item, cfg.noise, rng))

    fix = "raise task.max_groups, or name more kinds"
    return generated.build("records", cfg, seed=seed, draw=lambda rng: draw(cfg, rng), write=write, fix=fix)


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads: none."""
    return ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct."""
    return generated.reference(prompt)


def draw(cfg: Config, rng: random.Random) -> Item:
    """A question with its answer."""
    kind = rng.choice(cfg.kinds)
    asked = _KINDS[kind](rng, cfg)
    return Item(
        question=_question(kind, asked, cfg),
        gold=answers.write_gold(asked.answer),
        answer=answers.text(asked.answer),
        steps=asked.steps,
        difficulty=max(map(len, asked.given)),
        columns={"kind": kind},
    )


def _record(rng: random.Random, cfg: Config, among: Mapping[str, Any]) -> tuple[Record, str]:
    """A record, and the group that is asked about, one of those given."""
    asked = rng.choice([*among])
    others = rng.sample([name for name in GROUPS if name != asked], rng.randint(cfg.min_groups, cfg.max_groups) - 1)
    names = [asked, *others]
    rng.shuffle(names)
    return {key: value for name in names for key, value in world.group(name, rng).items()}, asked


def _detect(rng: random.Random, cfg: Config) -> Asked:
    record, group = _record(rng, cfg, _DEPENDENT)
    attribute = rng.choice(_DEPENDENT[group])
    hint = f"{RULES[group]}: {world.reason(record, attribute)}"
    if rng.random() < cfg.positive:
        record[attribute] = _error(record, attribute, group, rng, cfg)
    wrong = not world.fits(record, attribute)
    return Asked(
        given=(record,),
        about=attribute,
        sentence=f"Is the value of {attribute} wrong?",
        answer=Answer(Kind.BOOLEAN, wrong),
        steps=(world.reason(record, attribute),),
        hint=hint,
    )


def _error(record: Record, attribute: str, group: str, rng: random.Random, cfg: Config) -> str:
    """A value that cannot be right."""
    while True:
        kind = rng.choice(cfg.errors)
        if kind == "implausible":
            value = rng.choice(_IMPLAUSIBLE)
        elif kind == "violation" and attribute == "id":
            value = record["id"][:-1] + generated.other_character(record["id"][-1], rng)
        elif kind == "violation":
            value = world.group(group, rng)[attribute]
        else:
            value = generated.slipped(record[attribute], rng)
        if not world.fits(record | {attribute: value}, attribute):
            return value


def _impute(rng: random.Random, cfg: Config) -> Asked:
    record, group = _record(rng, cfg, _IMPUTED)
    attribute = _IMPUTED[group]
    value, reason = record[attribute], world.reason(record, attribute)
    record[attribute] = "?"
    return Asked(
        given=(record,),
        about=attribute,
        sentence=f"What is the value of {attribute}?",
        answer=Answer(Kind.TEXT, value),
        steps=(reason,),
        hint=f"{RULES[group]}: {reason}",
    )


def _schema(rng: random.Random, cfg: Config) -> Asked:
    place = rng.randrange(len(CONCEPTS))
    same = rng.random() < cfg.positive
    other = place if same else _confused(place, rng)
    one, two = rng.sample(range(3), 2)
    first = {CONCEPTS[place].names[one]: rng.choice(CONCEPTS[place].descriptions)}
    second = {CONCEPTS[other].names[two if same else rng.randrange(3)]: rng.choice(CONCEPTS[other].descriptions)}
    return Asked(
        given=(first, second),
        about="",
        sentence="Do these two attributes mean the same?",
        answer=Answer(Kind.BOOLEAN, same),
        hint="attributes of different names may mean the same",
    )


def _confused(place: int, rng: random.Random) -> int:
    """Another concept, half of the time the one that is easily confused with it."""
    if rng.random() < 0.5:
        return place ^ 1
    return rng.choice([n for n in range(len(CONCEPTS)) if n != place])


def _entity(rng: random.Random, cfg: Config) -> Asked:
    entity = _person(rng)
    same = rng.random() < cfg.positive
    if same:
        other = _edited(entity, rng, cfg.edits)
    else:
        kept = rng.sample([key for key in entity if key != "name"], cfg.shared)
        other = _person(rng) | {key: entity[key] for key in kept}
        other = _edited({key: other[key] for key in entity}, rng, cfg.edits // 2)
    return Asked(
        given=(entity, other),
        about="",
        sentence="Are these two records of the same thing?",
        answer=Answer(Kind.BOOLEAN, same),
        hint="what the name says counts most; names may be abbreviated or misspelt",
    )


def _person(rng: random.Random) -> Record:
    words = generated.invented_words(rng, 2)
    return {
        "name": " ".join(words),
        "city": rng.choice([*world.PLACES]),
        "item": rng.choice([*world.GOODS]),
        "price": str(rng.randint(1, 99)),
    }


def _edited(record: Record, rng: random.Random, edits: int) -> Record:
    """A record with so many changes that leave it the same thing."""
    out = dict(record)
    for _ in range(edits):
        edit, other = rng.choice(("abbreviate", "typo", "drop", "move")), [key for key in out if key != "name"]
        first, _, last = out["name"].partition(" ")
        if edit == "abbreviate":
            out["name"] = f"{first[0]}. {last}"
        elif edit == "typo":
            out["name"] = f"{first} {generated.slipped(last, rng)}"
        elif edit == "drop" and len(other) > 1:
            del out[rng.choice(other)]
        else:
            keys = [*out]
            rng.shuffle(keys)
            out = {key: out[key] for key in keys}
    return out


def _question(kind: str, asked: Asked, cfg: Config) -> str:
    if cfg.style == COMPACT:
        given = [",".join(f"{key}:{value}" for key, value in part.items()) for part in asked.given]
        hint = asked.hint.partition(": ")[2] if cfg.hints else ""
        return "|".join(part for part in (kind, *given, asked.about, hint) if part) + "="
    lines = [f"[{', '.join(f'{key}: {value}' for key, value in part.items())}]" for part in asked.given]
    if cfg.hints:
        lines.append(f"Know that {asked.hint}.")
    wanted = "yes or no" if asked.answer.kind is Kind.BOOLEAN else "the value"
    return "\n".join([*lines, asked.sentence, _FORM.format(wanted)])


_KINDS: dict[str, Callable[[random.Random, Config], Asked]] = {
    "detect": _detect,
    "impute": _impute,
    "schema": _schema,
    "entity": _entity,
}
