"""Writes docs/tasks.md: every task with an example that its code makes, what it is good for, and its keys.

python docs/make_tasks.py            # a test holds the page against this output

Draws docs/pictures/tasks.svg, too: what `benchmarks/task_proofs.py` has measured of the knobs.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlhf.core import component, config
from rlhf.core.types import Prompt
from rlhf.report.curves import PALETTE, STYLE
from rlhf.tasks.common import PromptSets

PAGE = Path(__file__).parent / "tasks.md"
GENERATED, READ = "generated", "read"

HEAD = """# Tasks

A task turns rows, or nothing at all, into prompts with gold answers, and names the rewards that grade them. `task.name`
chooses one, `rlhf tasks` lists them with their keys, [configuration.md](configuration.md) explains every key, and the
README shows how to write your own.

Most tasks invent their questions. What `tint`, `procbench`, `hierarchy`, `counting`, `records`, `symbolic` and
`tool_use` have in common:

- *Exact verifiers.* A program decides; nothing of an answer is evaluated. See [rewards.md](rewards.md).
- *Two styles.* `style: compact` puts a question in a few characters, for models that read characters and are trained
  in minutes; `style: words` puts it in plain English, for others.
- *Worked answers* with a step per line, for supervised stages, and labels of steps for process reward models: the
  columns `trace_steps` and `trace_labels` say of each line whether it and all before it are right.
- *Noise on request*, in training answers only, so that there is something for a reward to mend: an error on the way is
  carried on into what follows.
- *A split that no seed can break.* Whether a question is held out is a function of its text. One in five is.
- *The same on every machine*: prompts follow from the seed alone; a unit test holds hashes of them.

`python benchmarks/task_proofs.py` makes 10,000 prompts per task and style, of these and of the other tasks that invent
their questions. On a machine with two busy cores, in CPU time:

PROOFS

The solver on the right is each task's own algorithm, which errs 5 % of the times that it can and goes on from there: in
a step or a clause, a word that it forgets to count, a number of a program. That of `facts` has room for a hundred. The
harder the questions, the rarer it gets through:

![how often a solver that errs 5 % of the times is right, over the knob of every task](pictures/tasks.svg)
"""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the page says of a task beside its code."""

    text: str
    good_for: str
    harder: str = ""
    keys: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of the first example."""
    words: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of a second example, in plain English; empty for none."""
    rows: tuple[dict[str, Any], ...] = ()
    """Dataset rows of the example, for tasks that read some."""
    which: int = 0
    """Which training prompt is shown."""


TOLD: dict[str, Told] = {
    "sums": Told(
        text="Running sums or differences, one addition per line. The task of the quickstart.",
        good_for="Showing any method at work in minutes; step labels.",
        harder="`max_terms`, `max_operand`",
    ),
    "tint": Told(
        text="Arithmetic digit by digit, every value written down: add, sub, mul, div, gcd, sort and median."
        " What inner operations show is a matter of `visibility`. Noise is of four kinds: digits replaced in"
        " finished traces, lines left out, digits replaced while the machine runs, and rules broken while it"
        " runs (a forgotten carry).",
        good_for="What noise in chains of thought does to training, and what filters of data and process rewards"
        " mend. Recipe: [configs/tasks/tint.yaml](../configs/tasks/tint.yaml).",
        harder="`max_digits`, `operations`, `max_numbers`",
        words={"operations": ["sub"], "min_digits": 2, "max_digits": 2},
    ),
    "procbench": Told(
        text="The 23 procedures of ProcBench, to be followed to the letter, with its measures; or its own"
        " records for evaluation (`records`). With all procedures and `spread: 1` sizes are those of the"
        " benchmark.",
        good_for="Long chains of simple steps: process rewards, length generalisation. Recipe:"
        " [configs/tasks/procbench.yaml](../configs/tasks/procbench.yaml).",
        harder="`max_steps`, `spread`",
        keys={"procedures": ["rotate"], "min_steps": 3, "max_steps": 3},
        words={"procedures": ["move_cyclic"], "min_steps": 2, "max_steps": 2, "form": "json"},
    ),
    "hierarchy": Told(
        text="Trees, binary trees, nested JSON and formulas: 29 kinds of questions, from naming the root to"
        " converting notations. Answers are compared as lists, sets, edges, numbers or formulas.",
        good_for="Structured reasoning; edits against look-ups; encodings (`encoding: indented`).",
        harder="`max_levels`, `max_degree`, `max_operands`, `operators`",
        keys={"kinds": ["common_ancestor"], "min_levels": 3},
        words={"kinds": ["calculate"], "min_operands": 3, "max_operands": 3},
    ),
    "counting": Told(
        text="How often a letter or a pair of letters occurs in a word, how long it is, how many different"
        " letters it has. Answers are uniform, so that guessing does not pay.",
        good_for="The simplest task whose direct answer fails where a running count works (`direct: true` against"
        " false). Recipe: [configs/tasks/counting.yaml](../configs/tasks/counting.yaml).",
        harder="`max_length`",
        words={"kinds": ["distinct"], "spellings": ["list"], "max_length": 4},
    ),
    "records": Told(
        text="Data preprocessing on an invented world: errors to detect, values to fill in, attributes and"
        " entities to match. Questions of yes and no are measured by F1.",
        good_for="A domain without mathematics; knowledge as hints (`hints: true`); unbalanced classes (`positive`).",
        harder="`max_groups`, `edits`, `shared`",
        keys={"kinds": ["detect"], "min_groups": 2},
        words={"kinds": ["entity"]},
    ),
    "symbolic": Told(
        text="Last letters put together, coins flipped, objects swapped, days counted.",
        good_for="Chain of thought with and without; generalisation to more steps than were taught.",
        harder="`max_steps`, `objects`",
        keys={"kinds": ["shuffle"], "max_steps": 2},
        words={"kinds": ["coin"], "max_steps": 3},
    ),
    "tool_use": Told(
        text="A calculator, or functions put together, called in the middle of an answer. Worked answers come in"
        " pieces, of which a supervised stage with `examples: {name: pieces}` does not learn what tools say."
        " With the [sampler](search.md#methods) `tool_calls` results are put into an answer while it is sampled, and no"
        " loss sees them.",
        good_for="Learning when to call (`direct_below`, and `call_cost` of the reward), calls with a schema.",
        harder="`max_depth`, `max_number`",
        words={"kinds": ["functions"], "max_depth": 2, "min_depth": 2},
    ),
    "target_length": Told(
        text="So many words on a subject (Ruler), exactly.",
        good_for="Length control.",
        harder="`max_words`",
    ),
    "facts": Told(
        text="An invented world of words and numbers, of which some are taught and some are not. `probes` adds"
        " questions to the held-out side: `verbatim` (memorisation), `rephrased`, `larger` and `sum`"
        " (generalisation), each measured as a task of its own.",
        good_for="Knowing what one knows: refusals, calibration, what fine-tuning on facts teaches and what not.",
        harder="`known`, `forms`",
    ),
    "programs": Told(
        text="Small Python functions, which tests call.",
        good_for="The reward `code`.",
        harder="`max_steps`, `max_number`",
    ),
    "instructions": Told(
        text="Lists of words under instructions that a program can check, of IFEval's kind.",
        good_for="Instruction following in minutes.",
        harder="`max_clauses`, `max_words`",
    ),
    "gsm8k": Told(
        text="Word problems whose solution ends in `#### N`.",
        good_for="The usual first benchmark.",
        keys={"train": "rows.jsonl", "test": None},
        rows=(
            {"question": "Ann has 3 bags of 4 pears. How many pears?", "answer": "3*4=<<3*4=12>>12 pears.\n#### 12"},
            {"question": "Bo had 9 nuts and ate 2. How many are left?", "answer": "9-2=<<9-2=7>>7.\n#### 7"},
        ),
    ),
    "math": Told(
        text=r"Competition problems with `\boxed` answers.",
        good_for="MATH and its like.",
        keys={"train": "rows.jsonl", "test": None},
        rows=(
            {"problem": "What is $1/2+1/3$?", "solution": r"A common denominator gives $\boxed{\frac{5}{6}}$."},
            {"problem": "Solve $2x=8$.", "solution": r"Halving gives $x=\boxed{4}$."},
        ),
    ),
    "code": Told(
        text="Programming problems with tests: MBPP, APPS, HumanEval and others as they are published.",
        good_for="The reward `code` with real problems.",
        keys={"train": "rows.jsonl", "test": None},
        rows=(
            {"text": "Add them.", "code": "def add(a, b):\n    return a + b", "test_list": ["assert add(1, 2) == 3"]},
            {"text": "Double it.", "code": "def twice(x):\n    return 2 * x", "test_list": ["assert twice(2) == 4"]},
        ),
    ),
    "ifeval": Told(
        text="Prompts with verifiable instructions, rows of IFEval or of open-instruct.",
        good_for="Instruction following of real models.",
        keys={"train": "rows.jsonl", "test": None, "response_field": "response"},
        rows=tuple(
            {
                "prompt": f"Describe {thing} without commas.",
                "instruction_id_list": ["punctuation:no_comma"],
                "kwargs": [{}],
                "response": f"{thing.capitalize()} is fine.",
            }
            for thing in ("rain", "snow")
        ),
    ),
    "bigbench": Told(
        text="Tasks in BIG-bench's JSON format below folders of yours. Targets are matched, choices are worth"
        " their scores; what is held out is instances, tasks or keywords (`hold_out`).",
        good_for="Evaluation on many small tasks; several references per question.",
        rows=(
            {
                "name": "weather",
                "keywords": ["common sense"],
                "examples": [{"input": f"Is {w} wet?", "target_scores": {"yes": s, "no": 1 - s}}
                             for w, s in (("rain", 1), ("sand", 0), ("snow", 1))],
            },
        ),
    ),
    "natural_instructions": Told(
        text="Tasks with definitions and examples, both versions of Natural Instructions, below folders of"
        " yours. Answers are measured by ROUGE-L; whole tasks are held out by default.",
        good_for="Generalisation to unseen tasks.",
        keys={"hold_out": "instance", "shots": 1},
        rows=(
            {
                "Definition": ["Name the colour of the thing."],
                "Categories": ["Question Answering"],
                "Positive Examples": [{"input": "snow", "output": "white", "explanation": "Snow is white."}],
                "Instances": [{"input": thing, "output": ["green"]} for thing in ("grass", "moss", "a frog")],
            },
        ),
    ),
    "mix": Told(
        text="Several tasks in one run, trained on together or stage by stage, and measured one by one.",
        good_for="What one task costs another; curricula over stages (`tasks` of a stage).",
    ),
}  # fmt: skip
"""In the order of the page."""


def page() -> str:
    """The whole page."""
    names = component.names("rlhf.tasks")
    assert set(TOLD) == set(names), f"write in {__file__} about {set(names) ^ set(TOLD)}"
    rows = ["| task | what it is | questions | rewards |", "|---|---|---|---|"]
    for name in TOLD:
        module = module_of(name)
        kind = READ if "rows" in vars(TOLD[name]) and TOLD[name].rows else GENERATED
        rewards = ", ".join(f"`{reward}`" for reward in module.REWARDS) or "those of its parts"
        rows.append(
            f"| [`{name}`](#{name}) | {module.DESCRIPTION} | {'of parts' if name == 'mix' else kind} | {rewards} |"
        )
    return "\n".join([HEAD.replace("PROOFS", proofs()), *rows, "", *(section(name) for name in TOLD)])


def proofs() -> str:
    """The table of figures that `benchmarks/task_proofs.py` has measured."""
    found = json.loads((Path(__file__).parent / "task_proofs.json").read_text(encoding="utf-8"))
    titles = ("task", "prompts per second, compact", "in words", "golds accepted", "damaged answers refused", "solver")
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, entry in found.items():
        knob = f"{entry['knob']}: " + ", ".join(f"{100 * share:.0f} %" for share in entry["accuracies"])
        counts = [sum(proof[key] for proof in entry["proofs"].values()) for key in ("accepted", "rejected", "items")]
        shares = [f"{counts[0]:,} of {counts[2]:,}", f"{counts[1]:,} of {counts[2]:,}"]
        speeds = [f"{proof['per_second']:,.0f}" for proof in entry["proofs"].values()]
        speeds += ["–"] * (2 - len(speeds))
        rows.append(f"| `{name}` | {' | '.join([*speeds, *shares])} | {knob} |")
    return "\n".join(rows)


def picture(path: Path) -> None:
    """How often the solver is right, over the knob of every task."""
    found = json.loads((Path(__file__).parent / "task_proofs.json").read_text(encoding="utf-8"))
    with matplotlib.rc_context(STYLE), matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": path.stem}):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained", facecolor=PALETTE["paper"][0])
        every = [*figure.subplots(2, -(-len(found) // 2), sharey=True).flat]
        for axes in every[len(found) :]:
            axes.set_axis_off()
        for axes, (name, entry) in zip(every, found.items(), strict=False):
            axes.plot(range(len(entry["values"])), entry["accuracies"], "o-", color=PALETTE["c0"][0], markersize=3.5)
            axes.set_xticks(range(len(entry["values"])), entry["values"])
            axes.set_title(name, loc="left", color=PALETTE["ink"][0])
            axes.set_xlabel(entry["knob"])
            axes.set_ylim(0, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        figure.savefig(path, metadata={"Date": None})


def section(name: str) -> str:
    """A heading, what the task is, examples from its code, and its keys."""
    told, module = TOLD[name], module_of(name)
    parts = [f"## `{name}`\n", wrapped(told.text)]
    if name != "mix":
        parts.append(example(name, told.keys, told))
        if told.words:
            parts.append(example(name, {"style": "words", **told.words}, told))
    parts.append(wrapped(f"*Good for.* {told.good_for}" + (f" *Harder with* {told.harder}." if told.harder else "")))
    keys = ", ".join(f"`{key.name}`" for key in dataclasses.fields(module.Config))
    parts.append(wrapped(f"*Keys.* {keys}"))
    return "\n".join(parts)


def wrapped(text: str) -> str:
    """A paragraph of the page."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False) + "\n"


def example(name: str, keys: dict[str, Any], told: Told) -> str:
    """A prompt and its worked answer, as the code makes them."""
    prompt = built(name, keys, told).train()[told.which]
    return f"{given(name, keys)}{shown(prompt)}"


def built(name: str, keys: dict[str, Any], told: Told) -> PromptSets:
    """The task of an example."""
    module = module_of(name)
    if name in ("bigbench", "natural_instructions"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "example" / ("task.json" if name == "bigbench" else "colours.json")
            file.parent.mkdir()
            file.write_text(json.dumps(told.rows[0]), encoding="utf-8")
            return module.build(config.build(module.Config, {**keys, "train": [folder]}), seed=0, rows=None)
    sizes = {"train_size": 4, "held_out_size": 1}
    known = {key.name for key in dataclasses.fields(module.Config)}
    cfg = config.build(module.Config, {key: value for key, value in sizes.items() if key in known} | keys)
    return module.build(cfg, seed=0, rows=lambda source, **keys: list(told.rows))


def given(name: str, keys: dict[str, Any]) -> str:
    """The config of an example, where it is not the default."""
    if not keys or "train" in keys:
        return ""
    return f"`task: {json.dumps({'name': name, **keys}).replace(chr(34), '')}`\n\n"


def shown(prompt: Prompt) -> str:
    """The turns of a prompt, and the worked answer."""
    turns = [f"{message.role}: {message.content}" for message in prompt.messages]
    return "\n".join(["```text", *turns, f"assistant: {prompt.solution}", "```\n"])


def module_of(name: str) -> Any:
    return component.resolve("rlhf.tasks", name, where="task.name")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    picture(PAGE.parent / "pictures" / "tasks.svg")
