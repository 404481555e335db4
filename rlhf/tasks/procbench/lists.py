"""Procedures whose state is a list or a number, or that look for something: count, search, encode, the two that split,
compose, compare, count2, cumulate, and the two that go in circles."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from rlhf.tasks.procbench.procedure import DIGITS, LETTERS, Draw, Note, Problem, Procedure

_ALNUM = LETTERS + DIGITS
_TRIES = 40


def _draw_count(d: Draw) -> Problem | None:
    if d.steps < 2:
        return None
    strings = list[str]()
    for _ in range(d.steps - 1):
        kinds = (LETTERS if d.rng.random() < 0.75 else DIGITS for _ in range(d.rng.randint(4, 9)))
        strings.append("".join(d.rng.choice(kind) for kind in kinds))
    return {"strings": strings}


def _count(problem: Problem, note: Note) -> None:
    total = 0
    for text in problem["strings"]:
        letters = sum(character.isalpha() for character in text)
        number = int("".join(filter(str.isdigit, text)) or "0")
        row = note([text, str(letters), str(number), str(letters * number)])
        total += int(row[3])
    note(total)


def _draw_search(d: Draw) -> Problem:
    patterns = [d.text(2) for _ in range(d.steps)]
    strings = list[str]()
    for _ in range(max(2, round(10 * d.spread))):
        held = d.rng.choices(patterns, k=d.rng.randint(0, 2))
        rest = d.text(d.between(3, 10))
        cut = d.rng.randint(0, len(rest))
        strings.append(rest[:cut] + "".join(held) + rest[cut:])
    return {"strings": strings, "patterns": patterns}


def _search(problem: Problem, note: Note) -> None:
    counts = [0] * len(problem["strings"])
    for pattern in problem["patterns"]:
        counts = note([n + text.count(pattern) for n, text in zip(counts, problem["strings"], strict=True)])


def _draw_encode(d: Draw) -> Problem:
    bit = d.rng.randint(0, 1)
    return {"string": "".join(str((bit + n) % 2) * d.between(1, 9) for n in range(d.steps))}


def _encode(problem: Problem, note: Note) -> None:
    runs, text = list[str](), problem["string"]
    while text:
        rest = text.lstrip(text[0])
        runs = note([*runs, f"{text[0]}_{len(text) - len(rest)}"])
        text = rest


def _draw_split1(d: Draw) -> Problem:
    text = d.text(d.between(d.steps + 1, max(30, d.steps + 1)))
    return {"string": text, "positions": d.rng.sample(range(1, len(text)), d.steps)}


def _split1(problem: Problem, note: Note) -> None:
    parts, done = [problem["string"]], list[int]()
    for position in problem["positions"]:
        which = sum(other < position for other in done)
        at = position - max((other for other in done if other < position), default=0)
        parts = note([*parts[:which], parts[which][:at], parts[which][at:], *parts[which + 1 :]])
        done.append(position)


def _draw_split2(d: Draw) -> Problem:
    text = d.text(d.between(d.steps + 1, max(30, d.steps + 1)))
    sizes, pairs = [len(text)], list[tuple[int, int]]()
    for _ in range(d.steps):
        which = d.rng.choice([n for n, size in enumerate(sizes) if size > 1])
        at = d.rng.randint(1, sizes[which] - 1)
        sizes[which : which + 1] = [at, sizes[which] - at]
        pairs.append((which, at))
    return {"string": text, "pairs": pairs}


def _split2(problem: Problem, note: Note) -> None:
    parts = [problem["string"]]
    for which, at in problem["pairs"]:
        parts = note([*parts[:which], parts[which][:at], parts[which][at:], *parts[which + 1 :]])


def _draw_compose(d: Draw) -> Problem | None:
    """Rules are added for what is left when no rule applies any more, until there are enough steps."""
    text = d.text(d.between(d.steps + 3, max(30, d.steps + 3)))
    rules = dict[str, str]()
    for _ in range(_TRIES):
        seen = _composed(text, rules)
        if len(seen) > d.steps:
            return None
        if len(seen) == d.steps:
            break
        last = seen[-1] if seen else text
        at = d.rng.randrange(len(last) - 1)
        rules[last[at : at + 2]] = d.rng.choice(LETTERS)
    else:
        return None
    for _ in range(d.steps // 7 + 1):
        pair = d.text(2)
        if not any(pair in state for state in (text, *seen)):
            rules[pair] = d.rng.choice(LETTERS)
    listed = [(left[0], left[1], right) for left, right in rules.items()]
    d.rng.shuffle(listed)
    return {"characters": list(text), "rules": listed}


def _composed(text: str, rules: dict[str, str]) -> list[str]:
    seen = list[str]()
    while (at := _rightmost(text, rules)) >= 0:
        text = text[:at] + rules[text[at : at + 2]] + text[at + 2 :]
        seen.append(text)
    return seen


def _rightmost(text: str, rules: dict[str, str]) -> int:
    return next((n for n in range(len(text) - 2, -1, -1) if text[n : n + 2] in rules), -1)


def _compose(problem: Problem, note: Note) -> None:
    text, rules = "".join(problem["characters"]), {a + b: c for a, b, c in problem["rules"]}
    while (at := _rightmost(text, rules)) >= 0:
        text = "".join(note([*text[:at], rules[text[at : at + 2]], *text[at + 2 :]]))


def _draw_compare(d: Draw) -> Problem:
    target = d.text(d.steps + 1)
    candidates = [_misses(target, d) for _ in range(d.steps - 1)]
    behind = [_misses(target, d) for _ in range(d.between(0, 9))]
    return {"target": target, "candidates": [*candidates, target, *behind]}


def _misses(target: str, d: Draw) -> str:
    """A text that begins like the target and goes on otherwise."""
    kept = d.rng.randint(1, len(target) - 1)
    wrong = d.rng.choice(LETTERS.replace(target[kept], ""))
    return target[:kept] + wrong + d.text(len(target) - kept - 1)


def _compare(problem: Problem, note: Note) -> None:
    target, found = problem["target"], list[str]()
    for candidate in problem["candidates"]:
        if candidate == target:
            note([*found, target])
            return
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(target, candidate, strict=False))
        found.append(note("".join(letter for letter, _ in alike)))


def _draw_count2(d: Draw) -> Problem:
    return {"sentence": " ".join(d.words(d.steps))}


def _count2(problem: Problem, note: Note) -> None:
    counts = [0] * len(LETTERS)
    for word in problem["sentence"].split():
        counts = note([n + word.lower().count(letter) for n, letter in zip(counts, LETTERS, strict=True)])


def _draw_cumulate(d: Draw) -> Problem:
    operations = list[str]()
    for _ in range(d.steps):
        adds = d.rng.random() < 0.5
        operations.append(f"Add {d.rng.randint(0, 9)}" if adds else f"Multiply {d.rng.randint(1, 5)}")
    return {"N": d.rng.randint(1, 9), "operations": operations}


def _cumulate(problem: Problem, note: Note) -> None:
    number = problem["N"]
    for operation in problem["operations"]:
        name, _, by = operation.partition(" ")
        number = note(number + int(by) if name == "Add" else number * int(by))


def _draw_move_cyclic(d: Draw) -> Problem:
    width = d.between(5, 50)
    at = d.rng.randrange(width)
    moves = [(d.rng.choice(("right", "left")), d.rng.randint(1, width)) for _ in range(d.steps)]
    return {"array": "-" * at + "x" + "-" * (width - at - 1), "moves": moves}


def _move_cyclic(problem: Problem, note: Note) -> None:
    array = problem["array"]
    for direction, distance in problem["moves"]:
        at = max(array.find("x"), 0) + (distance if direction == "right" else -distance)
        at %= len(array)
        array = note("-" * at + "x" + "-" * (len(array) - at - 1))


def _draw_find_cyclic(d: Draw) -> Problem:
    text = "".join(d.rng.sample(_ALNUM, d.between(d.steps, min(len(_ALNUM), d.steps + 4))))
    return {"string": text, "command": (d.rng.choice(text), d.steps)}


def _find_cyclic(problem: Problem, note: Note) -> None:
    text, (letter, number) = problem["string"], problem["command"]
    for left in range(number - 1, -1, -1):
        letter = text[(text.find(letter) + 1) % len(text)]
        letter = note([letter, str(left)])[0] if left else note(letter)


def _command(problem: Problem) -> list[str]:
    return [problem["command"][0], str(problem["command"][1])]


def _field(name: str) -> Any:
    return lambda problem: problem[name]


def _parts(problem: Problem) -> list[str]:
    return [problem["string"]]


PROCEDURES = {
    "count": Procedure(draw=_draw_count, run=_count, init=lambda problem: "0"),
    "search": Procedure(draw=_draw_search, run=_search, init=lambda problem: [0] * len(problem["strings"])),
    "encode": Procedure(draw=_draw_encode, run=_encode, init=lambda problem: ""),
    "split1": Procedure(draw=_draw_split1, run=_split1, init=_parts),
    "split2": Procedure(draw=_draw_split2, run=_split2, init=_parts),
    "compose": Procedure(draw=_draw_compose, run=_compose, init=_field("characters")),
    "compare": Procedure(draw=_draw_compare, run=_compare, init=lambda problem: [""]),
    "count2": Procedure(draw=_draw_count2, run=_count2, init=lambda problem: [0] * len(LETTERS)),
    "cumulate": Procedure(draw=_draw_cumulate, run=_cumulate, init=_field("N")),
    "move_cyclic": Procedure(draw=_draw_move_cyclic, run=_move_cyclic, init=_field("array")),
    "find_cyclic": Procedure(draw=_draw_find_cyclic, run=_find_cyclic, init=_command),
}
"""By name."""
