"""Procedures to be followed to the letter, every state written down: the 23 tasks of ProcBench.

    compact     rotate|abcde|1.4,0.2=          a procedure by name, and its fields
                adbce\\n#### dabce             each state on a line, the last one behind `####`

No knowledge and no search are needed, only care, for as many steps as are asked for; labels of steps come for free.
Problems are drawn as the benchmark draws them. In plain English (`style: words`) an answer is written on lines too, or
as the benchmark's own JSON (`form: json`). The reward `procedure` has the benchmark's measures.

With `records` held-out prompts come from rows in the benchmark's own format:

    {"prompt": "…", "label": {"init": …, "intermediate": […], "final": …}, "task_name": "task17", "problem_name": "…"}

Source: Fujisawa et al. 2024, "ProcBench: Benchmark for Multi-Step Reasoning and Following Procedure" (arXiv
2410.03117), and its code, ifujisawa/proc-bench; 23 tasks of 2 to 25 steps. Instructions are worded anew. We deviate in
words that mean nothing instead of sentences, in never emptying a string, in sizes from the lower end of the benchmark's
(`spread`), and in training answers that are wrong on purpose: with `noise` a state is altered, and the procedure goes
on from it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import Message, Prompt
from rlhf.tasks import common, generated
from rlhf.tasks.common import PromptSets, ReadRows, Row
from rlhf.tasks.generated import COMPACT, MARK, WORDS, GeneratedConfig, Worked
from rlhf.tasks.procbench import lists, strings
from rlhf.tasks.procbench.procedure import Draw, Problem, Procedure, State, compact, corrupted, shown, states, written
from rlhf.tasks.procbench.wording import INSTRUCTIONS

DESCRIPTION = "procedures to follow step by step, the 23 tasks of ProcBench; generated, or its own records"
REWARDS: dict[str, dict[str, Any]] = {"procedure": {"prefix": 0.0}}
"""Default reward slots: the last state decides; the benchmark's other measures are logged."""

_ORDER = (
    "sort gather count search copy substitute encode split1 split2 compose decompose rhythm compare count2 decode"
    " push_pop rotate fill_word delete_char delete_word cumulate move_cyclic find_cyclic"
)
PROCEDURES: Mapping[str, Procedure] = {name: (strings.PROCEDURES | lists.PROCEDURES)[name] for name in _ORDER.split()}
"""By name, in the order of the benchmark: `sort` is its task01."""
SMALL = ("encode", "decode", "rhythm", "push_pop", "rotate", "delete_char", "cumulate", "move_cyclic", "find_cyclic")
"""Those whose states are a few characters, for models that read characters."""

LINES, JSON = "lines", "json"
_FORMS = {
    LINES: f"Write each state on a line of its own, the last one behind `{MARK} `. Write a list with commas only,"
    " without brackets.",
    JSON: 'Answer with a JSON object {"intermediate": [the states before the last one], "final": the last state}.',
}
_TRIES = 1000


@dataclass(frozen=True, kw_only=True)
class Config(GeneratedConfig):
    """Which procedures, of how many steps."""

    procedures: list[str] = field(default_factory=lambda: list(SMALL))
    """By name; each prompt draws one."""
    min_steps: int = 2
    """Fewest states, the last one included."""
    max_steps: int = 6
    """Most states. The benchmark has 2 to 6 (short), 7 to 16 (medium) and 17 to 25 (long)."""
    spread: float = 0.25
    """Share of the benchmark's ranges of lengths and counts that is used, from the lower end; 1 for all of it."""
    form: str = LINES
    """How an answer is written: lines, or json (words only)."""
    noise: float = 0.0
    """Probability that a state of a training answer is altered."""
    records: str = ""
    """Held-out rows in the benchmark's format: a .jsonl, .json or .parquet file, or a hub id; empty generates them."""
    records_subset: str = ""
    """Configuration of a hub dataset. Files ignore it."""
    records_split: str = "test"
    """Split of a hub dataset. Files ignore it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        generated.check_choices(self, "procedures", PROCEDURES)
        generated.check_choices(self, "form", _FORMS)
        generated.check_range(self, "min_steps", "max_steps", least=2, most=25)
        generated.check_shares(self, "spread", "noise")
        if self.style == COMPACT and (self.form != LINES or self.records):
            problem = "compact questions are answered on lines, and records are in plain English"
            raise ConfigError("style", problem, fix=f"use style: {WORDS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Posed:
    """A problem with its states."""

    name: str
    problem: Problem
    states: tuple[State, ...]
    question: str


def build(cfg: Config, *, seed: int, rows: ReadRows) -> PromptSets:
    """Generate the training side, and generate or read the other.

    Raises:
        ConfigError: there are too few different questions.
        DataError: a row is not in the benchmark's format.
    """

    def write(name: str, posed: Posed, rng: random.Random, trains: bool) -> Prompt:
        return _prompt(name, posed, spoilt(posed, cfg, rng), trains, cfg)

    fix = "raise task.max_steps or task.spread, or name more procedures"
    sets = generated.build("procbench", cfg, seed=seed, draw=lambda rng: draw(cfg, rng), write=write, fix=fix)
    if not cfg.records:
        return sets
    found = rows(cfg.records, split=cfg.records_split, subset=cfg.records_subset, where="task.records")
    read = (record(row, cfg, where=f"{cfg.records}, row {n}", name=n) for n, row in enumerate(found, start=1))
    return PromptSets(train_prompts=sets.train_prompts, held_out_prompts=tuple(read))


def sources(cfg: Config) -> tuple[str, ...]:
    """The datasets that this config reads."""
    return (cfg.records,) if cfg.records else ()


def reference(prompt: Prompt) -> str:
    """The completion that must be graded as correct."""
    label = json.loads(prompt.gold)
    return answer([*label["intermediate"], label["final"]], str(prompt.columns["form"]))


def answer(found: list[Any], form: str) -> str:
    """States as they are written, the last one last."""
    *between, last = found
    if form == JSON:
        return json.dumps({"intermediate": between, "final": last})
    return "\n".join([*map(written, between), f"{MARK} {written(last)}"])


def draw(cfg: Config, rng: random.Random) -> Posed:
    """A problem with as many states as were drawn."""
    for _ in range(_TRIES):
        name = rng.choice(cfg.procedures)
        steps = rng.randint(cfg.min_steps, cfg.max_steps)
        problem = PROCEDURES[name].draw(Draw(rng=rng, steps=steps, spread=cfg.spread))
        if problem is None:
            continue
        found = states(PROCEDURES[name], problem)
        assert len(found) == steps, name
        return Posed(name=name, problem=problem, states=tuple(found), question=_question(name, problem, cfg))
    raise ConfigError("task.procedures", "no problem of so many steps was found", fix="change min_steps or max_steps")


def spoilt(posed: Posed, cfg: Config, rng: random.Random) -> list[State]:
    """The states of an answer that alters some, and goes on from them."""
    if not cfg.noise:
        return list(posed.states)
    found = list[State]()

    def note(state: State) -> State:
        seen = corrupted(state, rng) if rng.random() < cfg.noise and len(found) < 4 * len(posed.states) else state
        found.append(list(seen) if isinstance(seen, list) else seen)  # type: ignore[arg-type]
        return seen

    PROCEDURES[posed.name].run(posed.problem, note)
    return found


def record(row: Row, cfg: Config, *, where: str, name: int) -> Prompt:
    """A prompt of a row in the benchmark's format.

    Raises:
        DataError: it is in none.
    """
    question = common.text_field(row, "prompt", where=where, setting="task.records")
    label = row.get("label")
    try:
        label = json.loads(label) if isinstance(label, str) else label
    except ValueError as error:
        raise DataError(where, f"its label is no JSON ({error})", fix="mend this row") from error
    if not isinstance(label, Mapping) or "final" not in label or not isinstance(label.get("intermediate"), list):
        problem = f"its label is {str(label)[:80]!r}, without `intermediate` and `final`"
        raise DataError(where, problem, fix="use the format of ProcBench")
    kind = str(row.get("task_name", ""))
    count = len(label["intermediate"]) + 1
    return Prompt(
        id=f"procbench-record-{row.get('problem_name', name)}",
        messages=(Message(role="user", content=f"{question.strip()}\n\n{_FORMS[cfg.form]}"),),
        gold=json.dumps({key: label[key] for key in ("init", "intermediate", "final") if key in label}),
        task="procbench",
        columns={"procedure": _named(kind), "difficulty": count, "length": _length(count), "form": cfg.form},
    )


def _named(task: str) -> str:
    """`task17` is rotate."""
    number = task.removeprefix("task")
    names = [*PROCEDURES]
    return names[int(number) - 1] if number.isdigit() and 0 < int(number) <= len(names) else task


def _length(count: int) -> str:
    """The benchmark's bucket of a number of states."""
    return "short" if count <= 6 else "medium" if count <= 16 else "long"


def _question(name: str, problem: Problem, cfg: Config) -> str:
    if cfg.style == COMPACT:
        return "|".join([name, *map(compact, problem.values())]) + "="
    fields = "\n".join(f"{key[0].upper()}{key[1:]}: {shown(value)}" for key, value in problem.items())
    return f"{INSTRUCTIONS[name]}\n\n[Question]\n{fields}\n\n{_FORMS[cfg.form]}"


def _prompt(name: str, posed: Posed, taught: list[State], trains: bool, cfg: Config) -> Prompt:
    right = list(posed.states)
    label = {"init": PROCEDURES[posed.name].init(posed.problem), "intermediate": right[:-1], "final": right[-1]}
    lines = [answer(s, LINES).split("\n") for s in (taught, right)]
    graded: Worked = generated.judged(*lines)
    return Prompt(
        id=name,
        messages=(Message(role="user", content=posed.question),),
        gold=json.dumps(label, separators=(",", ":")),
        task="procbench",
        solution=answer(taught if trains else right, cfg.form),
        columns={
            "procedure": posed.name,
            "difficulty": len(right),
            "length": _length(len(right)),
            "form": cfg.form,
            "wrong_steps": len(graded.right) - sum(graded.right) if trains else 0,
            "trace_steps": graded.lines,
            "trace_labels": graded.right,
        },
    )
