"""What generated tasks share: the split, worked answers that err, and hashes. And, for each, that golds are accepted,
damaged answers are not, the hash is that of any machine, and its knob makes it harder."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
import task_proofs

from rlhf.core.errors import ConfigError
from rlhf.tasks import counting, generated
from rlhf.tasks.generated import Item

TASKS = [knob.task for knob in task_proofs.KNOBS if knob.styles]
GRADED_BY_RUNNING = "programs"
FINGERPRINTS = {
    "tint": "167476ba8f2e0cd2",
    "procbench": "fb80bcdbceb182e9",
    "counting": "1cce2e0d5579a2ab",
    "symbolic": "2f0e846d8135b461",
    "hierarchy": "096fc60656bb437e",
    "records": "70bdf5d9c40109b8",
    "tool_use": "e7792ba9a88615d8",
    "sums": "e7f45cb10c1fb40d",
    "target_length": "c417c815619bad63",
    "facts": "6121794285052021",
    "instructions": "037ba9316bd0ed14",
    "programs": "2a7c806d364fb80e",
}
"""Of 200 training prompts with seed 0."""
ITEM = Item(question="q", gold="7", answer="7", steps=("a 1", "b 2"), difficulty=3)


@pytest.mark.parametrize("task", [knob.task for knob in task_proofs.KNOBS])
def test_golds_are_accepted_damaged_answers_are_not_and_the_hash_is_known(task: str) -> None:
    count = 4 if task == GRADED_BY_RUNNING else 200
    found = task_proofs.prove(task, items=count)
    assert (found.items, found.accepted, found.rejected) == (count, count, count)
    assert generated.fingerprint(task_proofs.prompts_of(task, items=200)) == FINGERPRINTS[task]


@pytest.mark.parametrize("task", TASKS)
def test_in_words_too(task: str) -> None:
    found = task_proofs.prove(task, items=50, style="words")
    assert (found.accepted, found.rejected) == (50, 50)


@pytest.mark.parametrize(
    "knob", [k for k in task_proofs.KNOBS if k.task != GRADED_BY_RUNNING], ids=lambda knob: knob.task
)
def test_a_solver_that_errs_is_right_less_often_the_harder_the_prompts(knob: task_proofs.Knob) -> None:
    found = task_proofs.accuracies(knob, items=knob.items)
    assert all(easier > harder for easier, harder in pairwise(found)), found


@pytest.mark.parametrize("task", TASKS)
def test_sides_are_disjoint_for_any_seed_and_longer_sets_begin_with_shorter_ones(task: str) -> None:
    module = task_proofs.module_of(task)
    sides: list[set[str]] = [set(), set()]
    for seed, size in ((0, 80), (1, 160)):
        made = module.build(module.Config(train_size=size, held_out_size=30), seed=seed, rows=None)
        for side, prompts in zip(sides, (made.train_prompts, made.held_out_prompts), strict=True):
            side |= {prompt.messages[-1].content for prompt in prompts}
        assert len({prompt.messages[-1].content for prompt in made.held_out_prompts}) == 30
        assert len({prompt.id for prompt in (*made.train_prompts, *made.held_out_prompts)}) == size + 30
        if seed == 1:
            shorter = module.build(module.Config(train_size=80, held_out_size=5), seed=1, rows=None)
            assert made.train_prompts[:80] == shorter.train_prompts
            assert made.held_out_prompts[:5] == shorter.held_out_prompts
    assert not sides[0] & sides[1]
    assert module.sources(module.Config()) == ()


@pytest.mark.parametrize("task", TASKS)
def test_steps_are_labelled_up_to_the_first_that_is_wrong(task: str) -> None:
    knob = task_proofs.knob_of(task)
    prompts = task_proofs.prompts_of(task, items=60, **{knob.slips: 0.3})
    refer = task_proofs.module_of(task).reference
    broken = 0
    for prompt in prompts:
        lines, right = prompt.columns["trace_steps"], refer(prompt).split("\n")
        same = [line == wanted for line, wanted in zip(lines, right, strict=False)]
        first = next((n for n, equal in enumerate(same) if not equal), min(len(lines), len(right)))
        assert prompt.columns["trace_labels"] == tuple(n < first for n in range(len(lines)))
        assert prompt.solution == "\n".join(lines)
        assert prompt.columns["wrong_steps"] == len(lines) - first
        broken += first < len(lines)
    assert broken > 8
    clean = task_proofs.prompts_of(task, items=40)
    assert all(p.solution == refer(p) and all(p.columns["trace_labels"]) for p in clean)


def test_held_out_answers_stay_right_whatever_the_noise() -> None:
    made = counting.build(counting.Config(noise=0.4, train_size=20, held_out_size=40), seed=0)
    assert all(p.solution == counting.reference(p) and p.columns["wrong_steps"] >= 0 for p in made.held_out_prompts)
    assert any(not all(p.columns["trace_labels"]) for p in made.held_out_prompts)


def test_an_answer_that_errs_is_wrong_from_the_line_on_where_it_did() -> None:
    assert generated.erring(ITEM, 0.0, random.Random(0)) == ITEM.worked
    always = generated.erring(ITEM, 1.0, random.Random(0))
    assert always.lines != ITEM.worked.lines and not any(always.right)
    rng = random.Random(1)
    right = sum(all(generated.erring(ITEM, 0.2, rng).right) for _ in range(4000))
    assert abs(right / 4000 - 0.8**3) < 0.03, "two steps, and one chance that is left for the answer"


@pytest.mark.parametrize("text", ["yes", "no", "12.35", "abc", "a>b,c", "7", "none", ""])
def test_a_slip_makes_another_text(text: str) -> None:
    assert all(generated.slipped(text, random.Random(seed)) != text for seed in range(30))
    assert generated.slipped("yes", random.Random(0)) == "no"
    assert generated.slipped("12.35", random.Random(0))[1:] == "2.35"


def test_the_fingerprint_sees_every_part_of_a_prompt() -> None:
    [prompt] = task_proofs.prompts_of("counting", items=1)
    same = generated.fingerprint([prompt])
    for changed in (
        replace(prompt, id="x"),
        replace(prompt, gold="x"),
        replace(prompt, solution=None),
        replace(prompt, columns={**prompt.columns, "kind": "x"}),
        replace(prompt, messages=()),
    ):
        assert generated.fingerprint([changed]) != same
    assert generated.fingerprint([prompt]) == same != generated.fingerprint([prompt, prompt])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"train_size": 0}, "train_size"), ({"held_out_size": 0}, "held_out_size"), ({"style": "x"}, "style")],
)
def test_impossible_values_name_their_field(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        generated.GeneratedConfig(**wrong)  # type: ignore[arg-type]
    assert caught.value.where == field


def test_too_small_an_instance_space_says_which_knob_to_turn() -> None:
    cfg = counting.Config(min_length=2, max_length=2, alphabet=3, held_out_size=50)
    with pytest.raises(ConfigError, match=r"held_out_size.*found \d+ of 50.*\n.*max_length"):
        counting.build(cfg, seed=0)
