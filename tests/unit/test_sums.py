"""Running sums: traces, noise, and the split that no seed or size can break."""

import random
import re
from dataclasses import replace

import pytest

from rewards import math
from rlhf.core import config
from rlhf.core.errors import ConfigError
from rlhf.core.types import RewardOut, Verdict
from rlhf.tasks import common, sums


def verify(completion: str, gold: str) -> RewardOut:
    """A toy verifier: the integer after the last `####`."""
    if not gold.isdigit():
        return RewardOut(value=None, verdict=Verdict.UNPARSABLE, reason="gold")
    found = re.findall(r"#### (\d+)$", completion)
    right = bool(found) and found[-1] == gold
    verdict = Verdict.CORRECT if right else Verdict.WRONG if found else Verdict.NO_ANSWER
    return RewardOut(value=float(right), verdict=verdict, reason="match" if right else "mismatch")


def question(prompt):
    return prompt.messages[0].content


def test_a_trace_adds_from_left_to_right():
    trace = sums.work((3, 5, 9))
    assert trace == sums.Trace(steps=("3+5=8", "8+9=17"), answer=17, wrong_steps=0, right=(True, True, True))
    assert trace.text == "3+5=8\n8+9=17\n#### 17"


def test_a_wrong_addition_is_carried_on():
    trace = sums.work((3, 5, 9), noise=1.0, rng=random.Random(0))
    first = int(trace.steps[0].removeprefix("3+5="))
    second = int(trace.steps[1].removeprefix(f"{first}+9="))
    assert abs(first - 8) in (1, 2) and abs(second - first - 9) in (1, 2)
    assert trace.answer == second and trace.wrong_steps == 2


def test_wrong_results_are_never_negative():
    results = {sums.work((0, 0), noise=1.0, rng=random.Random(seed)).answer for seed in range(40)}
    assert results == {1, 2}


def test_a_difference_subtracts_from_left_to_right_and_may_be_negative():
    trace = sums.work((3, 5, 9), operation="subtract")
    assert trace == sums.Trace(steps=("3-5=-2", "-2-9=-11"), answer=-11, wrong_steps=0, right=(True, True, True))
    assert trace.text == "3-5=-2\n-2-9=-11\n#### -11"
    results = {sums.work((0, 1), operation="subtract", noise=1.0, rng=random.Random(s)).answer for s in range(40)}
    assert results == {-3, -2, 0, 1}


def test_differences_are_prompts_like_sums_of_other_operands():
    cfg = sums.Config(operation="subtract", train_size=200, held_out_size=40, noise=0.5)
    task, added = sums.build(cfg, seed=3), sums.build(replace(cfg, operation="add"), seed=3)
    for prompt in (*task.train(), *task.held_out()):
        first, *rest = prompt.columns["terms"]
        assert question(prompt) == "-".join(map(str, (first, *rest))) + "="
        assert prompt.gold == str(first - sum(rest)) and prompt.task == "sums"
        assert prompt.columns["steps"] == sums.work((first, *rest), operation="subtract").steps
        assert sums.reference(prompt) == "\n".join([*prompt.columns["steps"], f"#### {prompt.gold}"])
    assert any(p.gold.startswith("-") for p in task.train())
    assert any(p.columns["wrong_steps"] for p in task.train())
    assert not any(p.columns["wrong_steps"] for p in task.held_out())
    assert {question(p) for p in task.train()}.isdisjoint(map(question, task.held_out()))
    assert [p.columns["terms"] for p in task.train()] != [p.columns["terms"] for p in added.train()]


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("3-5=-2\n-2-9=-11\n#### -11", Verdict.CORRECT),
        ("#### -11", Verdict.CORRECT),
        ("#### 11", Verdict.WRONG),
        ("#### 3-5-9", Verdict.WRONG),
        ("3-5-9=-11", Verdict.NO_ANSWER),
    ],
)
def test_the_default_reward_reads_a_negative_answer_and_not_the_question(completion, verdict):
    cfg = config.build(math.Config, sums.REWARDS["math"])
    assert math.verify(completion, "-11", spec=cfg).verdict == verdict


def test_prompts_carry_gold_solution_and_columns():
    task = sums.build(sums.Config(train_size=50, held_out_size=20, noise=1.0), seed=3)
    for prompt in (*task.train(), *task.held_out()):
        terms = prompt.columns["terms"]
        assert question(prompt) == "+".join(map(str, terms)) + "="
        assert prompt.gold == str(sum(terms)) and prompt.task == "sums"
        assert prompt.columns["steps"] == sums.work(terms).steps
        assert prompt.columns["difficulty"] == len(terms) - 1 == len(prompt.solution.splitlines()) - 1
    assert all(p.columns["wrong_steps"] == p.columns["difficulty"] for p in task.train())
    assert all(p.solution == sums.reference(p) and not p.columns["wrong_steps"] for p in task.held_out())
    assert len({p.id for p in (*task.train(), *task.held_out())}) == 70


def test_operands_and_lengths_fill_their_ranges():
    task = sums.build(sums.Config(min_terms=2, max_terms=4, max_operand=12, train_size=2000), seed=0)
    terms = [p.columns["terms"] for p in task.train()]
    assert {len(t) for t in terms} == {2, 3, 4}
    assert {x for t in terms for x in t} == set(range(13))


def test_the_noise_rate_is_the_one_asked_for():
    task = sums.build(sums.Config(train_size=4000, noise=0.15), seed=1)
    wrong = sum(p.columns["wrong_steps"] for p in task.train())
    total = sum(p.columns["difficulty"] for p in task.train())
    deviation = (total * 0.15 * 0.85) ** 0.5
    assert abs(wrong - 0.15 * total) < 4 * deviation
    clean = sum(p.solution == sums.reference(p) for p in task.train())
    assert clean == sum(p.columns["wrong_steps"] == 0 for p in task.train())


def test_noise_changes_traces_but_not_questions():
    clean, noisy = (sums.build(sums.Config(train_size=300, noise=noise), seed=5) for noise in (0.0, 0.5))
    assert [question(p) for p in clean.train()] == [question(p) for p in noisy.train()]
    assert [p.solution for p in clean.train()] != [p.solution for p in noisy.train()]
    assert [question(p) for p in clean.held_out()] == [question(p) for p in noisy.held_out()]
    assert [p.solution for p in clean.held_out()] == [p.solution for p in noisy.held_out()]


def test_a_trace_knows_which_of_its_lines_are_right_so_far():
    for prompt in sums.build(sums.Config(train_size=300, noise=0.4, padding=0.3), seed=2).train():
        lines, labels = prompt.columns["trace_steps"], prompt.columns["trace_labels"]
        assert prompt.solution == "\n".join(lines) and len(lines) == len(labels)
        wrong = [n for n, line in enumerate(lines[:-1]) if eval_line(line) is False]
        first = wrong[0] if wrong else len(lines)
        assert labels == tuple(n < first for n in range(len(lines)))


def eval_line(line):
    left, result = line.split("=")
    return sum(map(int, left.split("+"))) == int(result)


def test_padding_puts_idle_lines_before_steps():
    task = sums.build(sums.Config(train_size=2000, padding=0.25), seed=3)
    idle = sum("+0=" in line and line.split("+")[0] == line.split("=")[1] for p in task.train() for line in trace(p))
    steps = sum(p.columns["difficulty"] for p in task.train())
    zeros = sum(term == 0 for p in task.train() for term in p.columns["terms"][1:])
    assert abs(idle - zeros - 0.25 * steps) < 4 * (steps * 0.25 * 0.75) ** 0.5
    assert all(p.columns["trace_labels"] == (True,) * len(p.columns["trace_labels"]) for p in task.train())
    without = sums.build(sums.Config(train_size=2000), seed=3)
    assert [question(p) for p in without.train()] == [question(p) for p in task.train()]


def trace(prompt):
    return prompt.columns["trace_steps"][:-1]


def test_held_out_traces_have_the_noise_but_not_the_solutions():
    task = sums.build(sums.Config(noise=0.3), seed=1)
    assert any(not all(p.columns["trace_labels"]) for p in task.held_out())
    assert all(p.solution == sums.reference(p) for p in task.held_out())


def test_held_out_prompts_never_occur_in_train_for_any_seed_or_size():
    trained, held = set(), set()
    for seed, size in ((0, 3000), (1, 500), (2, 100)):
        task = sums.build(sums.Config(train_size=size, held_out_size=200), seed=seed)
        trained |= {question(p) for p in task.train()}
        held |= {question(p) for p in task.held_out()}
        assert len({question(p) for p in task.held_out()}) == 200
    assert trained.isdisjoint(held)


def test_the_same_seed_gives_the_same_task_and_another_seed_another():
    cfg = sums.Config(train_size=100, held_out_size=50, noise=0.3)
    assert sums.build(cfg, seed=7) == sums.build(cfg, seed=7)
    assert sums.build(cfg, seed=7).train() != sums.build(cfg, seed=8).train()
    longer = sums.build(replace(cfg, train_size=200), seed=7)
    assert longer.train()[:100] == sums.build(cfg, seed=7).train()


def test_every_reference_is_accepted_even_where_training_traces_are_wrong():
    task = sums.build(sums.Config(train_size=200, noise=0.5), seed=0)
    report = common.validate([*task.train(), *task.held_out()], verify, reference=sums.reference)
    assert report.ok and report.checked == 456
    assert report.summary() == "456 of 456 golds are accepted by their verifier"


def test_validation_names_the_planted_bad_golds():
    prompts = list(sums.build(sums.Config(train_size=5), seed=0).train())
    prompts[1] = replace(prompts[1], gold="1000")
    prompts[3] = replace(prompts[3], gold="seventeen")
    report = common.validate(prompts, verify, reference=sums.reference)
    assert [(r.prompt_id, r.verdict) for r in report.refused] == [
        ("sums-train-2", Verdict.WRONG),
        ("sums-train-4", Verdict.UNPARSABLE),
    ]
    assert not report.ok
    assert report.summary(limit=1).splitlines() == [
        "3 of 5 golds are accepted by their verifier",
        "  sums-train-2: wrong mismatch (gold '1000')",
        "  and 1 more",
    ]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"min_terms": 1}, "min_terms"),
        ({"min_terms": 4, "max_terms": 3}, "max_terms"),
        ({"max_operand": 0}, "max_operand"),
        ({"noise": 1.5}, "noise"),
        ({"operation": "plus"}, "operation"),
        ({"train_size": 0}, "train_size"),
        ({"held_out_size": 0}, "held_out_size"),
    ],
)
def test_impossible_values_name_their_field(wrong, field):
    with pytest.raises(ConfigError) as caught:
        sums.Config(**wrong)
    assert caught.value.where == field


def test_too_small_an_instance_space_says_which_knob_to_turn():
    with pytest.raises(ConfigError, match=r"held_out_size.*found \d+ of 50.*\n.*max_operand"):
        sums.build(sums.Config(min_terms=2, max_terms=2, max_operand=3, held_out_size=50), seed=0)
