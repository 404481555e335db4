"""Proofs about the tasks that invent their questions: golds accepted, damaged answers rejected, speed, difficulty.

python benchmarks/task_proofs.py [--items 10000] [--json FILE] [TASK …]

For each task, at its default config and, where it has styles, in plain English: prompts made per second of CPU time;
how many of their references the task's own reward accepts, and how many of them it still accepts once the answer is
damaged; the hash of the prompts, which is the same on every machine. Then, knob by knob, how often a fixed solver is
right as the knob goes up: the task's own algorithm, which errs now and then and goes on from its errors, or one of
those below. The unit tests of the tasks call the same functions with fewer items. `programs` runs what it grades, and
takes minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from rewards.base import answered
from rlhf.core import component, config
from rlhf.core.component import Component
from rlhf.core.modules import Tools
from rlhf.core.types import Prompt, RewardOut, Verdict
from rlhf.data import sources
from rlhf.tasks import generated, programs, target_length

MARK = generated.MARK
SLIP = 0.05
"""How often the solver errs, each time that it can."""
STYLES = generated.STYLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found out about one config of a task."""

    items: int
    per_second: float
    accepted: int
    rejected: int
    fingerprint: str


Solve = Callable[[Sequence[Prompt], random.Random], list[str]]


def counting_on_fingers(prompts: Sequence[Prompt], rng: random.Random) -> list[str]:
    """Says words of the subject until it has counted enough of them, and forgets to count one now and then."""
    answers: list[str] = []
    for prompt in prompts:
        words, said, counted = target_length.WORDS[prompt.columns["subject"]].split(), list[str](), 0
        while counted < prompt.columns["target_words"]:
            said.append(words[len(said) % len(words)])
            counted += rng.random() >= SLIP
        answers.append(" ".join(said))
    return answers


def remembering(prompts: Sequence[Prompt], rng: random.Random) -> list[str]:
    """Has room for the first hundred facts that it is asked about."""
    facts = [*dict.fromkeys(prompt.columns["fact"] for prompt in prompts)][:100]
    return [f"{MARK} {prompt.gold if prompt.columns['fact'] in facts else 10}" for prompt in prompts]


def mistyping(prompts: Sequence[Prompt], rng: random.Random) -> list[str]:
    """Writes a number of the program one too large now and then."""
    asked = [[step.split() for step in prompt.messages[0].content.split(", ")] for prompt in prompts]
    return [programs.answer([(name, int(n) + (rng.random() < SLIP)) for name, n in steps]) for steps in asked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A config key that makes prompts harder, with rising settings."""

    task: str
    name: str
    settings: Sequence[Mapping[str, Any]]
    slips: str = "noise"
    """The key that makes worked answers err."""
    solve: Solve | None = None
    """A solver where worked answers do not err step by step."""
    styles: Sequence[str] = ()
    """Those that the task has."""
    items: int = 160
    """How many tell the settings apart."""

    @property
    def values(self) -> list[int]:
        """Where the knob stands at each setting."""
        return [next(iter(settings.values())) for settings in self.settings]


def _steps(low: str, high: str, *values: int) -> list[dict[str, Any]]:
    return [{low: n, high: n} for n in values]


KNOBS = (
    Knob(
        task="tint",
        name="digits",
        settings=_steps("min_digits", "max_digits", 1, 2, 4, 8),
        slips="systematic_noise",
        styles=STYLES,
    ),
    Knob(task="procbench", name="steps", settings=_steps("min_steps", "max_steps", 2, 4, 8, 16), styles=STYLES),
    Knob(task="counting", name="letters", settings=_steps("min_length", "max_length", 3, 6, 12, 24), styles=STYLES),
    Knob(task="symbolic", name="steps", settings=_steps("min_steps", "max_steps", 2, 4, 8, 16), styles=STYLES),
    Knob(
        task="hierarchy",
        name="levels",
        settings=[{**levels, "balanced": True} for levels in _steps("min_levels", "max_levels", 2, 3, 4)],
        styles=STYLES,
    ),
    Knob(
        task="records",
        name="groups",
        settings=[{**g, "kinds": ["detect", "impute"]} for g in _steps("min_groups", "max_groups", 1, 2, 3, 4)],
        styles=STYLES,
    ),
    Knob(task="tool_use", name="depth", settings=_steps("min_depth", "max_depth", 1, 2, 4, 8), styles=STYLES),
    Knob(task="sums", name="terms", settings=_steps("min_terms", "max_terms", 3, 5, 9, 17)),
    Knob(
        task="target_length",
        name="words",
        settings=_steps("min_words", "max_words", 1, 3, 5, 7, 9),
        solve=counting_on_fingers,
        items=1000,
    ),
    Knob(
        task="facts",
        name="known",
        settings=[{"known": n, "unknown": 1, "copies": 1} for n in (100, 200, 400, 800)],
        solve=remembering,
        items=2400,
    ),
    Knob(
        task="instructions",
        name="words",
        settings=[{**words, "max_clauses": words["min_words"]} for words in _steps("min_words", "max_words", 1, 3, 5)],
        items=2000,
    ),
    Knob(task="programs", name="steps", settings=_steps("min_steps", "max_steps", 1, 2, 4, 6), solve=mistyping),
)
"""What the unit tests and this program try."""


def grader(task: str) -> Callable[[Prompt, str], RewardOut]:
    """Grades a completion by the task's first default reward."""
    label, keys = next(iter(module_of(task).REWARDS.items()))
    reward: Component = config.build_component("rewards", {"name": label} | keys, f"rewards.{label}")
    nothing = cast(Tools, None)
    return lambda prompt, text: reward.module.score(answered(prompt, text), reward.config, nothing)[0]


def module_of(task: str) -> Any:
    return component.resolve("rlhf.tasks", task, where="task.name")


def prompts_of(task: str, *, items: int, seed: int = 0, **keys: Any) -> tuple[Prompt, ...]:
    """Training prompts, as many or, of a task with a size of its own, at most so many."""
    module = module_of(task)
    known = {field.name for field in fields(module.Config)}
    sizes = {"train_size": items, "held_out_size": 1}
    if task == "facts":
        sizes = {"known": -(-items // 9), "unknown": 1, "copies": 3}
    cfg = config.build(module.Config, {key: size for key, size in sizes.items() if key in known} | keys)
    return tuple(module.build(cfg, seed=seed, rows=sources.rows).train()[:items])


def prove(task: str, *, items: int, **keys: Any) -> Proof:
    """Make prompts, and grade their references whole and damaged."""
    began = time.process_time()
    prompts = prompts_of(task, items=items, **keys)
    took = time.process_time() - began
    grade, refer, rng = grader(task), module_of(task).reference, random.Random(0)
    accepted = sum(grade(p, refer(p)).verdict is Verdict.CORRECT for p in prompts)
    rejected = sum(grade(p, damaged(refer(p), rng)).verdict is not Verdict.CORRECT for p in prompts)
    return Proof(
        items=len(prompts),
        per_second=len(prompts) / took,
        accepted=accepted,
        rejected=rejected,
        fingerprint=generated.fingerprint(prompts),
    )


def damaged(completion: str, rng: random.Random) -> str:
    """A completion whose answer is another one: what stands behind the mark, the last number of a program, or a list
    with a word too many."""
    head, mark, answer = completion.rpartition(MARK)
    if mark:
        return f"{head}{mark} {generated.slipped(answer.strip(), rng)}"
    if completion.endswith("```"):
        return re.sub(r"(\d+)(?=\D*$)", lambda last: str(int(last[0]) + rng.randint(1, 3)), completion)
    return f"{completion} more"


def knob_of(task: str) -> Knob:
    """The knob of a task."""
    return next(knob for knob in KNOBS if knob.task == task)


def accuracies(knob: Knob, *, items: int) -> list[float]:
    """How often the solver is right at each setting of a knob."""
    grade, found = grader(knob.task), list[float]()
    for settings in knob.settings:
        slips = {knob.slips: SLIP} if knob.solve is None else {}
        prompts = prompts_of(knob.task, items=items, **slips, **settings)
        solved = knob.solve or (lambda asked, _: [prompt.solution or "" for prompt in asked])
        outs = [grade(p, said) for p, said in zip(prompts, solved(prompts, random.Random(0)), strict=True)]
        found.append(sum(out.verdict is Verdict.CORRECT for out in outs) / len(outs))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=[knob.task for knob in KNOBS])
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="also write the figures there, for docs/make_tasks.py")
    arguments = parser.parse_args()
    figures = dict[str, Any]()
    print(f"{'task':24}{'items':>8}{'per second':>12}{'accepted':>10}{'rejected':>10}  fingerprint")
    for task in arguments.tasks:
        knob = knob_of(task)
        figures[task] = {"knob": knob.name, "values": knob.values}
        for style in knob.styles or ("",):
            found = prove(task, items=arguments.items, **({"style": style} if style else {}))
            counts = f"{found.items:8}{found.per_second:12,.0f}{found.accepted:10}{found.rejected:10}"
            print(f"{', '.join(filter(None, (task, style))):24}{counts}  {found.fingerprint}", flush=True)
            figures[task].setdefault("proofs", {})[style] = asdict(found)
        figures[task]["accuracies"] = accuracies(knob, items=max(500, knob.items, arguments.items // 10))
    print(f"\nA solver that errs {SLIP:.0%} of the times that it can is right, as the knob goes up:")
    for task, found in figures.items():
        shares = "  ".join(f"{share:.3f}" for share in found["accuracies"])
        print(f"{task + ', ' + found['knob']:24}{shares}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
