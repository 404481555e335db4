"""The 23 procedures: each by hand, numbers of steps, golds, noise that is carried on, the benchmark's own records."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from rewards import procedure as reward
from rlhf.core.errors import ConfigError, DataError
from rlhf.tasks import procbench
from rlhf.tasks.procbench import PROCEDURES, Config
from rlhf.tasks.procbench.procedure import Draw, corrupted, states
from rlhf.tasks.procbench.wording import INSTRUCTIONS

BY_HAND: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "sort": ({"string": "cabba"}, ["acbba", "aabbc"]),
    "gather": ({"strings": ["ab3", "xyz"], "triples": [(1, 0, 2), (0, 2, 1)]}, ["xy", "xy3"]),
    "count": ({"strings": ["a1b2", "xyz"]}, [["a1b2", "2", "12", "24"], ["xyz", "3", "0", "0"], 24]),
    "search": ({"strings": ["aaa", "abab"], "patterns": ["aa", "ab"]}, [[1, 0], [1, 2]]),
    "copy": ({"strings": ["ab", "c"], "indices": [1, 0]}, ["c", "cab"]),
    "substitute": ({"pairs": [("a", "x")], "string": "aba"}, ["xba", "xba", "xbx"]),
    "encode": ({"string": "1101"}, [["1_2"], ["1_2", "0_1"], ["1_2", "0_1", "1_1"]]),
    "split1": ({"string": "abcde", "positions": [3, 1]}, [["abc", "de"], ["a", "bc", "de"]]),
    "split2": ({"string": "abcde", "pairs": [(0, 3), (1, 1)]}, [["abc", "de"], ["abc", "d", "e"]]),
    "compose": (
        {"characters": list("abab"), "rules": [("a", "b", "c"), ("c", "c", "d")]},
        [["a", "b", "c"], ["c", "c"], ["d"]],
    ),
    "decompose": ({"string": "axa", "rules": [("a", "bc")]}, ["bcxa", "bcxbc"]),
    "rhythm": ({"numbers": [1, 2], "letters": ["a", "b", "c"], "N": 3}, ["1a", "1a2b", "1a2b1c"]),
    "compare": ({"target": "abc", "candidates": ["abx", "axx", "abc", "a"]}, ["ab", "a", ["ab", "a", "abc"]]),
    "count2": ({"sentence": "ab a"}, [[1, 1] + [0] * 24, [2, 1] + [0] * 24]),
    "decode": ({"pieces": ["1x2", "0x3"]}, ["11", "11000"]),
    "push_pop": ({"string": "ab", "actions": ["push_left(x)", "pop_right", "push_right(y)"]}, ["xab", "xa", "xay"]),
    "rotate": ({"string": "abcd", "pairs": [(0, 4), (1, 3)]}, ["dabc", "dbac"]),
    "fill_word": ({"sentence": "[2] b [1]", "pairs": [(1, "c"), (2, "a")]}, ["[2] b c", "a b c"]),
    "delete_char": ({"string": "abcab", "letters": ["b", "a"]}, ["acab", "cab"]),
    "delete_word": ({"sentence": "a b a c", "words": ["a", "c"]}, ["b a c", "b a"]),
    "cumulate": ({"N": 3, "operations": ["Add 4", "Multiply 5"]}, [7, 35]),
    "move_cyclic": ({"array": "-x--", "moves": [("left", 2), ("right", 3)]}, ["---x", "--x-"]),
    "find_cyclic": ({"string": "abc", "command": ("b", 3)}, [["c", "2"], ["a", "1"], "b"]),
}


def nothing(*args: Any, **keys: Any) -> Any:
    raise AssertionError("nothing is read")


def test_every_procedure_has_a_case_and_a_wording() -> None:
    assert len(PROCEDURES) == 23 and set(PROCEDURES) == set(BY_HAND) == set(INSTRUCTIONS)
    names = [*PROCEDURES]
    assert (names[0], names[16], names[22]) == ("sort", "rotate", "find_cyclic")


@pytest.mark.parametrize("name", BY_HAND)
def test_a_procedure_by_hand(name: str) -> None:
    problem, expected = BY_HAND[name]
    assert states(PROCEDURES[name], problem) == expected


@pytest.mark.parametrize("name", PROCEDURES)
def test_problems_have_as_many_states_as_asked_for_and_noise_ends(name: str) -> None:
    rng = random.Random(0)
    for steps, spread in ((2, 0.25), (7, 0.5), (25, 1.0)):
        problem = None
        while problem is None:
            problem = PROCEDURES[name].draw(Draw(rng=rng, steps=steps, spread=spread))
        assert len(states(PROCEDURES[name], problem)) == steps
        noisy: list[Any] = []
        PROCEDURES[name].run(problem, lambda state, noisy=noisy: (noisy.append(state), corrupted(state, rng))[1])
        assert len(noisy) < 200


@pytest.mark.parametrize("form", ["lines", "json"])
def test_references_follow_the_whole_procedure_in_both_forms(form: str) -> None:
    cfg = Config(
        procedures=[*PROCEDURES], style="words", form=form, max_steps=9, spread=1.0, train_size=69, held_out_size=5
    )
    made = procbench.build(cfg, seed=0, rows=nothing)
    for prompt in (*made.train_prompts, *made.held_out_prompts):
        out = reward.verify(procbench.reference(prompt), prompt.gold)
        assert out.breakdown["sm"] == 1.0, prompt.messages[0].content
        assert prompt.columns["difficulty"] == len(json.loads(prompt.gold)["intermediate"]) + 1


def test_an_altered_state_is_carried_on() -> None:
    cfg = Config(procedures=["push_pop"], noise=0.3, min_steps=6, max_steps=6, train_size=200, held_out_size=5)
    made = procbench.build(cfg, seed=0, rows=nothing)
    outs = [reward.verify(p.solution or "", p.gold) for p in made.train_prompts]
    assert 0.05 < sum(out.value == 1.5 for out in outs) / 200 < 0.25
    wrong = [out for out in outs if out.breakdown["sm"] == 0]
    assert sum(out.breakdown["fm"] or 0 for out in wrong) < 0.3 * len(wrong)
    assert all(reward.verify(p.solution or "", p.gold).value == 1.5 for p in made.held_out_prompts)


def test_the_benchmark_s_own_records_are_read() -> None:
    label = {"init": "abcd", "intermediate": ["dabc"], "final": "dbac"}
    given = [
        {"prompt": "Rotate …", "label": label, "task_name": "task17", "problem_name": "task17_0001"},
        {"prompt": "Count …", "label": json.dumps(label | {"intermediate": ["x"] * 7}), "task_name": "mine"},
    ]

    def rows(source: str, **keys: Any) -> list[dict[str, Any]]:
        assert (source, keys["where"]) == ("records.jsonl", "task.records")
        return given

    cfg = Config(style="words", form="json", records="records.jsonl", train_size=5)
    made = procbench.build(cfg, seed=0, rows=rows)
    first, second = made.held_out_prompts
    assert first.id == "procbench-record-task17_0001" and first.columns["procedure"] == "rotate"
    assert first.columns["length"] == "short" and second.columns["length"] == "medium"
    assert reward.verify('{"intermediate": ["dabc"], "final": "dbac"}', first.gold).breakdown["sm"] == 1
    assert reward.verify(procbench.reference(second), second.gold).breakdown["sm"] == 1
    assert procbench.sources(cfg) == ("records.jsonl",) and procbench.sources(Config()) == ()
    given[0] = {"prompt": "…", "label": {"final": 3}}
    with pytest.raises(DataError, match=r"records\.jsonl, row 1.*intermediate"):
        procbench.build(cfg, seed=0, rows=rows)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"procedures": ["sorted"]}, "procedures"), ({"min_steps": 1}, "min_steps"), ({"max_steps": 26}, "max_steps"),
        ({"noise": 2}, "noise"), ({"spread": -1}, "spread"), ({"form": "json"}, "style"), ({"records": "x"}, "style"),
        ({"style": "words", "form": "xml"}, "form"),
    ],
)  # fmt: skip
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert caught.value.where == where
