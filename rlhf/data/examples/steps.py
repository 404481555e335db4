"""Solutions with a label per step: read from the formats in use, and turned into samples for a process reward model.

A label is the chance that the solution is still right at the end of its step: 1 or 0 by a person or by a hard estimate,
anything between by a soft one. Rows are told apart by their columns:

    columns                         format
    prompt|messages, steps, labels  ours, and TRL's stepwise one, which calls the steps `completions`; a label is true,
                                    false or a number in [0, 1]
    question, label (objects)       PRM800K (Lightman et al. 2023, arXiv 2305.20050): the chosen completion of every
                                    step; ratings 1 and 0 are good and -1 is bad, as Qwen reads them (arXiv 2501.07301);
                                    a step that a person wrote is good; what follows a step without a rating is left out
    input, label (texts)            Math-Shepherd (Wang et al. 2023, arXiv 2312.08935): `ки` ends a step in `input`,
                                    `+` or `-` stands in its place in `label`
    problem, steps, label (number)  ProcessBench (Zheng et al. 2024, arXiv 2412.06559): the first wrong step, counted
                                    from 0, or -1; steps from there on are bad

A sample is the question as a policy is asked it, then each step and `step_end`, tokenized one by one as TRL does. The
score of a step is read where its end stands, so the target that carries its label is the token behind it (for the last
step EOS); what that token is plays no role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import Labels, Sample
from rlhf.core.types import Message, Prompt
from rlhf.data.render import eos_id, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LABELS = Labels.STEPS
SHEPHERD_TAG = "ки"
_SHEPHERD_LABELS = {"+": 1.0, "-": 0.0}
_RATINGS = {1: 1.0, 0: 1.0, -1: 0.0}
_FORMATS = (
    "give it `prompt` or `messages`, `steps` and `labels`, or use the format of PRM800K, Math-Shepherd or ProcessBench"
)

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """How solutions with step labels become samples."""

    step_end: str = "\n"
    """Put after every step; the score is read at its last token. A reward that uses the model must have the same."""
    until_error: bool = False
    """Leave out the steps after the first bad one (label below 0.5), as Zhang et al. 2025 (arXiv 2501.07301) do."""
    last_step_only: bool = False
    """Learn the last step's label only: an outcome reward model."""

    def __post_init__(self) -> None:
        if not self.step_end:
            fix = "use a line break, or a token of its own like <extra_0>"
            raise ConfigError("step_end", "is empty, so that no token stands at the end of a step", fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A solution with labels. Example: `Solution(prompt=…, steps=("3+5=9", "9+9=18"), labels=(0.0, 0.0))`."""

    prompt: Prompt
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    """In [0, 1], one per step."""

    @property
    def first_error(self) -> int:
        """The first step whose label is below 0.5, counted from 0; -1 where there is none."""
        return next((n for n, label in enumerate(self.labels) if label < 0.5), -1)


def given(prompt: Prompt, cfg: Config) -> Solution | None:
    """The traced solution that a task gives with a prompt, in its columns `trace_steps` and `trace_labels`."""
    steps, labels = prompt.columns.get("trace_steps"), prompt.columns.get("trace_labels")
    if not isinstance(steps, Sequence) or not isinstance(labels, Sequence) or isinstance(steps, str):
        return None
    return Solution(
        prompt=prompt, steps=tuple(map(str, steps)), labels=tuple(float(cast(float, label)) for label in labels)
    )


def read(row: Row, cfg: Config, *, where: str, name: str) -> Solution:
    """A row of any of the formats.

    Args:
        where: file and row, for messages.
        name: id of the solution.

    Raises:
        DataError: no known format, no step, or a label that is none.
    """
    if isinstance(row.get("question"), Mapping) and isinstance(row.get("label"), Mapping):
        messages, steps, labels = _prm800k(row, where)
    elif isinstance(row.get("input"), str) and isinstance(row.get("label"), str):
        messages, steps, labels = _math_shepherd(row, where)
    elif "problem" in row and "steps" in row and "label" in row:
        messages, steps, labels = _processbench(row, where)
    else:
        messages, steps, labels = _plain(row, where)
    if not steps:
        _refuse(where, "has no steps", "remove it, or give it steps")
    prompt = Prompt(id=name, messages=messages, gold=str(row.get("gold", "")), task=name)
    return Solution(prompt=prompt, steps=tuple(steps), labels=tuple(labels))


def render(example: Solution, cfg: Config, tokenizer: PreTrainedTokenizerBase) -> list[Sample]:
    """One sample: labels in `returns`, on the targets of the mask.

    Raises:
        DataError: the tokenizer cannot render it, or makes no token of a step's end.
    """
    prompt = render_prompt(tokenizer, example.prompt)
    end = tokenizer.encode(cfg.step_end, add_special_tokens=False)
    if not end:
        fix = "use text that it knows, for example a line break"
        raise DataError(tokenizer.name_or_path, f"makes no token of the step end {cfg.step_end!r}", fix=fix)
    kept = len(example.steps)
    if cfg.until_error and example.first_error >= 0:
        kept = example.first_error + 1
    tokens, ends = list(prompt), list[int]()
    for step in example.steps[:kept]:
        tokens += [*tokenizer.encode(step, add_special_tokens=False), *end]
        ends.append(len(tokens))
    tokens.append(eos_id(tokenizer))
    used = range(kept - 1, kept) if cfg.last_step_only else range(kept)
    labels = {ends[n]: example.labels[n] for n in used}
    places = range(len(prompt), len(tokens))
    return [
        Sample(
            id=example.prompt.id,
            tokens=tuple(tokens),
            target_start=len(prompt),
            target_mask=tuple(place in labels for place in places),
            returns=tuple(labels.get(place, 0.0) for place in places),
        )
    ]


def _plain(row: Row, where: str) -> tuple[tuple[Message, ...], list[str], list[float]]:
    steps = row.get("steps", row.get("completions"))
    labels = row.get("labels")
    if not isinstance(labels, list) or not isinstance(steps, list):
        _refuse(where, f"holds no steps with labels: it has the columns {', '.join(map(str, row))}", _FORMATS)
    if len(steps) != len(labels):
        _refuse(where, f"has {len(steps)} steps and {len(labels)} labels", "give every step one label")
    turns = row.get("messages") or [{"role": "user", "content": row.get("prompt")}]
    return _messages(turns, where), _texts(steps, where), [_label(label, where) for label in labels]


def _processbench(row: Row, where: str) -> tuple[tuple[Message, ...], list[str], list[float]]:
    steps, label = row["steps"], row["label"]
    if not isinstance(steps, list):
        _refuse(where, "has no list of steps", _FORMATS)
    if not isinstance(label, int) or isinstance(label, bool) or not -1 <= label < len(steps):
        _refuse(where, f"has the label {label!r}, which is neither -1 nor one of {len(steps)} steps", "mend the label")
    labels = [1.0 if label == -1 or n < label else 0.0 for n in range(len(steps))]
    return _messages([{"role": "user", "content": row["problem"]}], where), _texts(steps, where), labels


def _math_shepherd(row: Row, where: str) -> tuple[tuple[Message, ...], list[str], list[float]]:
    """The question ends where `Step 1:` begins. Both texts are the same but for the tags."""
    pieces = str(row["input"]).split(SHEPHERD_TAG)
    labelled, labels, place = str(row["label"]), list[float](), 0
    for piece in pieces[:-1]:
        place += len(piece)
        if labelled[place - len(piece) : place] != piece or labelled[place : place + 1] not in _SHEPHERD_LABELS:
            fix = f"let `label` be `input` with + or - for every {SHEPHERD_TAG}"
            _refuse(where, f"`label` does not follow `input` up to step {len(labels) + 1}", fix)
        labels.append(_SHEPHERD_LABELS[labelled[place]])
        place += 1
    question, mark, first = pieces[0].partition("Step 1:")
    if not mark:
        _refuse(where, "`input` has no `Step 1:`, where its solution begins", "mend the row")
    steps = [(mark + first).strip(), *(piece.strip() for piece in pieces[1:-1])] if labels else []
    return _messages([{"role": "user", "content": question.strip()}], where), _texts(steps, where), labels


def _prm800k(row: Row, where: str) -> tuple[tuple[Message, ...], list[str], list[float]]:
    steps, labels = list[str](), list[float]()
    given = row["label"].get("steps")
    if not isinstance(given, list):
        _refuse(where, "label.steps is no list", "mend the row")
    for number, step in enumerate(given, start=1):
        completions, chosen = step.get("completions") or [], step.get("chosen_completion")
        if chosen is None and step.get("human_completion"):
            steps.append(step["human_completion"].get("text"))
            labels.append(1.0)
            continue
        if chosen is not None and not 0 <= chosen < len(completions):
            _refuse(where, f"step {number} chose completion {chosen} of {len(completions)}", "mend the row")
        # Nothing is chosen where labelling ended with an error: the completion that was rated is the last step.
        found = completions[chosen or 0] if completions else None
        if found is None or found.get("rating") is None:
            break
        if found["rating"] not in _RATINGS:
            _refuse(where, f"step {number} has the rating {found['rating']!r}", "use -1, 0 or 1")
        steps.append(found.get("text"))
        labels.append(_RATINGS[found["rating"]])
        if chosen is None:
            break
    return _messages([{"role": "user", "content": row["question"].get("problem")}], where), _texts(steps, where), labels


def _messages(turns: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(turns, list) or not turns:
        _refuse(where, "has no question", _FORMATS)
    for turn in turns:
        if not isinstance(turn, Mapping) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            _refuse(where, f"has {turn!r} for a question", "give a text `prompt`, or `messages` of role and content")
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)


def _texts(steps: list[Any], where: str) -> list[str]:
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, str) or not step.strip():
            _refuse(where, f"step {number} is {step!r}, not text", "give every step a text")
    return steps


def _label(label: Any, where: str) -> float:
    if not isinstance(label, bool | int | float) or not 0 <= label <= 1:
        _refuse(where, f"has the label {label!r}", "use true, false, or a share in [0, 1]")
    return float(label)


def _refuse(where: str, problem: str, fix: str) -> NoReturn:
    raise DataError(where, problem, fix=fix)
