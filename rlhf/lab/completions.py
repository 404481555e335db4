"""A file of completions as groups to be scored, whatever its columns are called.

One row holds one completion, or a list of them; rows with the same prompt (their `prompt_id`, else their question and
gold) are one group, wherever they stand. Rewards that count tokens need a column `tokens` or a tokenizer: without one
they end with an error instead of measuring nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never, cast

from transformers import PreTrainedTokenizerBase

from rlhf.core.errors import DataError
from rlhf.core.types import Group, Message, Prompt, StopReason, Trajectory
from rlhf.data import sources

Row = Mapping[str, Any]

PROMPTS = ("prompt", "question", "problem", "messages", "instruction")
GOLDS = ("gold", "answer", "reference", "solution", "reference_solution", "ground_truth", "target")
COMPLETIONS = ("completion", "completions", "response", "responses", "output", "outputs", "generation", "text")
_USED = {*PROMPTS, *GOLDS, *COMPLETIONS, "tokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where a row holds what; an empty name stands for the first of the usual ones that the rows have."""

    prompt: str = ""
    gold: str = ""
    completion: str = ""
    gold_after: str = ""
    """The gold is what follows the last occurrence of this in its column: `####`, `A:`. Empty: all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One completion: where it stands and what it belongs to."""

    row: Row
    number: int
    """Of the row, from 1."""
    group: int
    place: int
    """Among the group's trajectories."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completions:
    """What a file holds."""

    groups: list[Group]
    items: list[Item]
    """In the order of the file."""


class Uncounted(tuple[int, ...]):
    """The tokens of a completion of which only the text is known: nobody may count them."""

    where: str

    def _refuse(self) -> Never:
        fix = "add a column `tokens` with the token ids, or name the model's tokenizer: --tokenizer FOLDER"
        raise DataError(self.where, "holds no tokens, and a reward of this config counts them", fix=fix)

    def __len__(self) -> int:
        self._refuse()

    def __bool__(self) -> bool:
        self._refuse()

    def __iter__(self) -> Iterator[int]:
        self._refuse()

    def __getitem__(self, key: Any) -> Any:
        self._refuse()


def read(path: Path, columns: Columns, *, tokenizer: PreTrainedTokenizerBase | None = None) -> Completions:
    """Read all rows of a .jsonl, .json or .parquet file, or of a hub dataset's split `train`.

    Raises:
        DataError: no such file, or a row without prompt, gold or completion; names the row and the fix.
    """
    rows = sources.rows(str(path), split="train", where="FILE")
    found: dict[str, int] = {}
    prompts: list[Prompt] = []
    answers: list[list[Trajectory]] = []
    items: list[Item] = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        prompt = _prompt(row, columns, name=f"row-{number}", where=where)
        key = str(row.get("prompt_id") or "\0".join([*(m.content for m in prompt.messages), prompt.gold]))
        group = found.setdefault(key, len(prompts))
        if group == len(prompts):
            prompts.append(prompt)
            answers.append([])
        for text in _texts(row, columns, where):
            place = len(answers[group])
            answers[group].append(_trajectory(row, text, prompts[group], number, place, where, tokenizer))
            items.append(Item(row=row, number=number, group=group, place=place))
    groups = [Group(prompt=p, trajectories=tuple(ts)) for p, ts in zip(prompts, answers, strict=True)]
    return Completions(groups=groups, items=items)


def _prompt(row: Row, columns: Columns, *, name: str, where: str) -> Prompt:
    """The prompt of a row; a row may do without a question, not without a gold."""
    asked = row.get(_column(row, columns.prompt, PROMPTS, where, "--prompt", needed=bool(columns.prompt)), "")
    gold_column = _column(row, columns.gold, GOLDS, where, "--gold")
    gold = row[gold_column]
    if not isinstance(gold, str | int | float) or isinstance(gold, bool):
        raise DataError(where, f"column '{gold_column}' holds {gold!r}, not an answer", fix="mend or remove this row")
    _, mark, tail = str(gold).rpartition(columns.gold_after or "\0")
    if columns.gold_after and not mark:
        problem = f"column '{gold_column}' holds no '{columns.gold_after}'"
        raise DataError(where, problem, fix="mend the row, or give another --gold-after")
    return Prompt(
        id=str(row.get("prompt_id") or name),
        messages=_messages(asked, where),
        gold=tail.strip(),
        task=str(row.get("task", "")),
        columns={key: value for key, value in row.items() if key not in _USED},
    )


def _texts(row: Row, columns: Columns, where: str) -> list[str]:
    name = _column(row, columns.completion, COMPLETIONS, where, "--completion")
    found = row[name]
    entries = cast("list[Any]", found) if isinstance(found, list) else [found]
    if entries and all(isinstance(entry, dict) and "role" in entry for entry in entries):
        entries = entries[-1:]  # one answer as a conversation
    texts: list[str] = []
    for entry in entries:
        text = entry.get("content") if isinstance(entry, dict) else entry
        if not isinstance(text, str):
            raise DataError(where, f"column '{name}' holds {found!r}, not text", fix="mend or remove this row")
        texts.append(text)
    if not texts:
        raise DataError(where, f"column '{name}' is an empty list", fix="mend or remove this row")
    return texts


def _messages(asked: Any, where: str) -> tuple[Message, ...]:
    if isinstance(asked, str):
        return (Message(role="user", content=asked),)
    if isinstance(asked, list):
        turns = cast("list[Any]", asked)
        if all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns):
            return tuple(Message(role=str(turn.get("role", "user")), content=turn["content"]) for turn in turns)
    raise DataError(where, f"its prompt is {asked!r}", fix="give text, or messages with `role` and `content`")


def _trajectory(
    row: Row,
    text: str,
    prompt: Prompt,
    number: int,
    place: int,
    where: str,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Trajectory:
    tokens: tuple[int, ...] = Uncounted()
    if isinstance(row.get("tokens"), list):
        tokens = tuple(row["tokens"])
    elif tokenizer is not None:
        tokens = tuple(cast("list[int]", tokenizer.encode(text, add_special_tokens=False)))
    elif isinstance(tokens, Uncounted):
        tokens.where = where
    # The id of a run's sample says its step, by which scheduled weights are read.
    name = str(row["id"]) if "policy_version" in row and "id" in row else f"row-{number}-{place}"
    stop = str(row.get("stop") or row.get("finish_reason") or "")
    return Trajectory(
        id=name,
        prompt_id=prompt.id,
        index=place,
        prompt_tokens=(),
        tokens=tokens,
        logprobs=(),
        text=text,
        stop=StopReason(stop) if stop in tuple(StopReason) else StopReason.EOS,
        policy_version=0,
        seed=0,
    )


def _column(row: Row, given: str, usual: Sequence[str], where: str, option: str, *, needed: bool = True) -> str:
    have = ", ".join(map(str, row)) or "(none)"
    if given:
        if given not in row:
            raise DataError(where, f"has no column '{given}'", fix=f"set {option} to one of its columns: {have}")
        return given
    found = next((name for name in usual if row.get(name) is not None), None)
    if found is None and needed:
        problem = f"has none of the columns {', '.join(usual)}"
        raise DataError(where, problem, fix=f"set {option} to one of its columns: {have}")
    return found or usual[0]
