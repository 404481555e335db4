"""Procedures whose state is a text: sort, gather, copy, substitute, decompose, rhythm, decode, push_pop, rotate, and
those that fill or delete."""

from __future__ import annotations

from rlhf.tasks.procbench.procedure import DIGITS, LETTERS, Draw, Note, Problem, Procedure

_ALNUM = LETTERS + DIGITS


def _draw_sort(d: Draw) -> Problem | None:
    length = d.between(d.steps + 1, min(50, d.steps + 14))
    text = d.text(max(5, length))
    seen = list[str]()
    _sort({"string": text}, lambda state: (seen.append(state), state)[1])
    return {"string": text} if len(seen) == d.steps else None


def _sort(problem: Problem, note: Note) -> None:
    text, front = problem["string"], 0
    for letter in LETTERS:
        at = text.find(letter, front)
        while at >= 0:
            if at != front:
                swapped = list(text)
                swapped[front], swapped[at] = swapped[at], swapped[front]
                text = note("".join(swapped))
            front += 1
            at = text.find(letter, max(front, at + 1))


def _draw_gather(d: Draw) -> Problem:
    strings = [d.text(d.rng.randint(5, 10), _ALNUM) for _ in range(d.between(2, 20))]
    triples = list[tuple[int, int, int]]()
    for _ in range(d.steps):
        which = d.rng.randrange(len(strings))
        begin = d.rng.randrange(len(strings[which]))
        triples.append((which, begin, d.rng.randint(1, len(strings[which]) - begin)))
    return {"strings": strings, "triples": triples}


def _gather(problem: Problem, note: Note) -> None:
    text = ""
    for which, begin, count in problem["triples"]:
        text = note(text + problem["strings"][which][begin : begin + count])


def _draw_copy(d: Draw) -> Problem:
    strings = [d.text(d.between(5, 20), _ALNUM) for _ in range(d.between(3, 25))]
    return {"strings": strings, "indices": [d.rng.randrange(len(strings)) for _ in range(d.steps)]}


def _copy(problem: Problem, note: Note) -> None:
    text = ""
    for index in problem["indices"]:
        text = note(text + problem["strings"][index])


def _draw_substitute(d: Draw) -> Problem:
    text = d.text(d.steps, _ALNUM)
    pairs = [(c, d.rng.choice(_ALNUM.replace(c, ""))) for c in dict.fromkeys(text)]
    d.rng.shuffle(pairs)
    return {"pairs": pairs, "string": text}


def _substitute(problem: Problem, note: Note) -> None:
    text, pairs = problem["string"], dict(problem["pairs"])
    for place in range(len(text)):
        text = note(text[:place] + pairs.get(text[place], text[place]) + text[place + 1 :])


def _draw_decompose(d: Draw) -> Problem:
    keys = d.rng.sample(LETTERS, d.rng.randint(1, min(d.steps, 20)))
    others = [letter for letter in LETTERS if letter not in keys]
    hits = [*keys, *d.rng.choices(keys, k=d.steps - len(keys))]
    characters = hits + d.rng.choices(others, k=d.between(0, 10))
    d.rng.shuffle(characters)
    return {"string": "".join(characters), "rules": [(key, "".join(d.rng.choices(others, k=2))) for key in keys]}


def _decompose(problem: Problem, note: Note) -> None:
    text, rules = problem["string"], dict(problem["rules"])
    for _ in range(4 * len(text)):
        at = next((n for n, character in enumerate(text) if character in rules), -1)
        if at < 0:
            return
        text = note(text[:at] + rules[text[at]] + text[at + 1 :])


def _draw_rhythm(d: Draw) -> Problem:
    numbers = [d.rng.randint(0, 9) for _ in range(d.rng.randint(4, 6))]
    letters = d.rng.choices(LETTERS[: d.rng.randint(2, 5)], k=8)
    return {"numbers": numbers, "letters": letters, "N": d.steps}


def _rhythm(problem: Problem, note: Note) -> None:
    numbers, letters, text = problem["numbers"], problem["letters"], ""
    for n in range(problem["N"]):
        text = note(f"{text}{numbers[n % len(numbers)]}{letters[n % len(letters)]}")


def _draw_decode(d: Draw) -> Problem:
    bit = d.rng.randint(0, 1)
    return {"pieces": [f"{(bit + n) % 2}x{d.between(1, 9)}" for n in range(d.steps)]}


def _decode(problem: Problem, note: Note) -> None:
    text = ""
    for piece in problem["pieces"]:
        character, _, count = piece.partition("x")
        text = note(text + character * int(count))


def _draw_push_pop(d: Draw) -> Problem:
    text = d.text(d.between(2, 20))
    size, actions = len(text), list[str]()
    for _ in range(d.steps):
        side = d.rng.choice(("left", "right"))
        pops = size > 1 and d.rng.random() < 0.5
        actions.append(f"pop_{side}" if pops else f"push_{side}({d.rng.choice(LETTERS)})")
        size += -1 if pops else 1
    return {"string": text, "actions": actions}


def _push_pop(problem: Problem, note: Note) -> None:
    text = problem["string"]
    for action in problem["actions"]:
        name, _, letter = action.removesuffix(")").partition("(")
        done = {
            "pop_left": text[1:],
            "pop_right": text[:-1],
            "push_left": letter + text,
            "push_right": text + letter,
        }
        text = note(done[name])


def _draw_rotate(d: Draw) -> Problem:
    text = d.text(d.between(5, 14))
    pairs = list[tuple[int, int]]()
    for _ in range(d.steps):
        begin = d.rng.randint(0, len(text) - 2)
        pairs.append((begin, d.rng.randint(begin + 2, len(text))))
    return {"string": text, "pairs": pairs}


def _rotate(problem: Problem, note: Note) -> None:
    text = problem["string"]
    for begin, end in problem["pairs"]:
        part = text[begin:end]
        text = note(text[:begin] + part[-1:] + part[:-1] + text[end:])


def _draw_fill_word(d: Draw) -> Problem:
    words = d.words(d.steps + d.between(0, 8))
    places = d.rng.sample(range(len(words)), d.steps)
    pairs = [(number, words[place]) for number, place in enumerate(places, start=1)]
    for number, place in enumerate(places, start=1):
        words[place] = f"[{number}]"
    return {"sentence": " ".join(words), "pairs": pairs}


def _fill_word(problem: Problem, note: Note) -> None:
    text = problem["sentence"]
    for number, word in problem["pairs"]:
        text = note(text.replace(f"[{number}]", word, 1))


def _draw_delete_char(d: Draw) -> Problem:
    text = d.text(d.between(d.steps + 1, max(30, d.steps + 1)))
    return {"string": text, "letters": d.rng.sample(text, d.steps)}


def _delete_char(problem: Problem, note: Note) -> None:
    text = problem["string"]
    for letter in problem["letters"]:
        text = note(text.replace(letter, "", 1))


def _draw_delete_word(d: Draw) -> Problem:
    words = d.words(d.steps + 1 + d.between(0, 8))
    deleted = d.rng.sample(words, d.steps)
    words += d.rng.choices(words, k=d.between(0, 4))
    d.rng.shuffle(words)
    return {"sentence": " ".join(words), "words": deleted}


def _delete_word(problem: Problem, note: Note) -> None:
    text = problem["sentence"]
    for word in problem["words"]:
        words = text.split(" ")
        if word in words:
            words.remove(word)
        text = note(" ".join(words))


def _string(problem: Problem) -> str:
    return problem["string"]


def _nothing(problem: Problem) -> str:
    return ""


def _sentence(problem: Problem) -> str:
    return problem["sentence"]


PROCEDURES = {
    "sort": Procedure(draw=_draw_sort, run=_sort, init=_string),
    "gather": Procedure(draw=_draw_gather, run=_gather, init=_nothing),
    "copy": Procedure(draw=_draw_copy, run=_copy, init=_nothing),
    "substitute": Procedure(draw=_draw_substitute, run=_substitute, init=_string),
    "decompose": Procedure(draw=_draw_decompose, run=_decompose, init=_string),
    "rhythm": Procedure(draw=_draw_rhythm, run=_rhythm, init=_nothing),
    "decode": Procedure(draw=_draw_decode, run=_decode, init=_nothing),
    "push_pop": Procedure(draw=_draw_push_pop, run=_push_pop, init=_string),
    "rotate": Procedure(draw=_draw_rotate, run=_rotate, init=_string),
    "fill_word": Procedure(draw=_draw_fill_word, run=_fill_word, init=_sentence),
    "delete_char": Procedure(draw=_draw_delete_char, run=_delete_char, init=_string),
    "delete_word": Procedure(draw=_draw_delete_word, run=_delete_word, init=_sentence),
}
"""By name."""
