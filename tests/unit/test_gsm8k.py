"""GSM8K rows to prompts, the split by question, and every message for rows that cannot be read."""

from pathlib import Path

import pytest

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.types import RewardOut, Verdict
from rlhf.data import sources
from rlhf.tasks import common, gsm8k

SHARED = Path(__file__).parents[3] / "shared" / "data"


def row(number, answer=None):
    return {
        "question": f"What is {number}? ",
        "answer": answer or f"It is <<{number}={number}>>{number}.\n#### {number}",
    }


def build(train, test=None, *, seed=0, **cfg):
    """A task on rows in memory: `train` and `test` stand for two files."""
    files = {"train.jsonl": train, "test.jsonl": test}
    config = gsm8k.Config(train="train.jsonl", test="test.jsonl" if test else None, **cfg)
    return gsm8k.build(config, seed=seed, rows=lambda source, *, split, subset, where: files[source])


def test_a_row_becomes_a_prompt():
    answer = "Half is 48/2=<<48/2=24>>24.\nIn all 1,024.\n#### 1,024"
    (prompt,) = build([{"question": " How many? ", "answer": answer, "source": "x"}], [row(1)]).train()
    assert prompt.id == "gsm8k-train-1" and prompt.task == "gsm8k"
    assert [(m.role, m.content) for m in prompt.messages] == [
        ("user", "How many?\nPut your final answer after ####."),
    ]
    assert prompt.gold == "1024"
    assert prompt.solution == "Half is 48/2=24.\nIn all 1,024.\n#### 1024"
    assert prompt.columns == {"source": "x"}


def test_calculator_annotations_and_instruction_are_optional():
    (prompt,) = build([row(5)], [row(1)], strip_calculator=False, instruction="").train()
    assert prompt.solution == "It is <<5=5>>5.\n#### 5"
    assert prompt.messages[0].content == "What is 5?"


def test_the_gold_stands_after_the_last_marker():
    (prompt,) = build([row(0, "first #### 3\nno, it is 4\n#### -4.5")], [row(1)]).train()
    assert prompt.gold == "-4.5"


def test_a_bare_gold_has_a_one_line_solution():
    (prompt,) = build([row(0, "#### 7")], [row(1)]).train()
    assert prompt.solution == "#### 7"


def test_other_column_names_can_be_set():
    rows = [{"problem": "1+1?", "worked": "#### 2"}]
    (prompt,) = build(rows, rows, question_field="problem", answer_field="worked").held_out()
    assert prompt.gold == "2" and prompt.id == "gsm8k-test-1"


def test_the_reader_is_told_split_subset_and_config_path():
    asked = []

    def rows(source, *, split, subset, where):
        asked.append((source, split, subset, where))
        return [row(1)]

    gsm8k.build(gsm8k.Config(), seed=0, rows=rows)
    assert asked == [
        ("openai/gsm8k", "train", "main", "task.train"),
        ("openai/gsm8k", "test", "main", "task.test"),
    ]
    assert gsm8k.sources(gsm8k.Config()) == ("openai/gsm8k", "openai/gsm8k")
    assert gsm8k.sources(gsm8k.Config(train="a.jsonl", test=None)) == ("a.jsonl",)


def test_without_a_test_set_a_share_of_the_questions_is_held_out_by_the_seed():
    rows = [row(n % 40) for n in range(80)]
    task = build(rows, held_out_share=0.25)
    train, held = ({p.messages[0].content for p in side} for side in (task.train(), task.held_out()))
    assert len(held) == 10 and train.isdisjoint(held) and len(train | held) == 40
    assert len(task.train()) + len(task.held_out()) == 80
    assert build(rows, held_out_share=0.25) == task
    assert {p.messages[0].content for p in build(rows, held_out_share=0.25, seed=1).held_out()} != held


def test_a_share_leaves_something_on_both_sides():
    task = build([row(1), row(2)], held_out_share=0.01)
    assert len(task.train()) == len(task.held_out()) == 1
    with pytest.raises(DataError, match=r"train\.jsonl: has one distinct question"):
        build([row(1), row(1)])


def test_limits_keep_a_nested_choice_in_the_order_of_the_data():
    rows = [row(n) for n in range(60)]
    few, more = (build(rows, rows, max_train=n, max_held_out=7).train() for n in (10, 20))
    assert len(few) == 10 and {p.id for p in few} < {p.id for p in more}
    assert [int(p.gold) for p in more] == sorted(int(p.gold) for p in more)
    assert [int(p.gold) for p in more] != list(range(20))
    assert len(build(rows, rows, max_held_out=7).held_out()) == 7


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"question": "q", "answer": "It is 4."},
            r"column 'answer' does not end in '#### N'.*\n.*fix: end the solution",
        ),
        ({"question": "q", "answer": "#### "}, r"column 'answer' does not end in '#### N'"),
        ({"question": "q", "answer": "#### 4\nand more"}, r"column 'answer' does not end in '#### N'"),
        ({"question": "q"}, r"has no column 'answer'\n.*task\.answer_field to one of its columns: question"),
        ({"answer": "#### 4"}, r"has no column 'question'\n.*task\.question_field"),
        ({"question": " ", "answer": "#### 4"}, r"column 'question' holds ' ', not text"),
        ({"question": "q", "answer": 4}, r"column 'answer' holds 4, not text"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_its_file(bad, message):
    with pytest.raises(DataError, match=r"^train\.jsonl, row 2: " + message):
        build([row(1), bad], [row(1)])


@pytest.mark.parametrize(
    "wrong", [{"held_out_share": 0.0}, {"held_out_share": 1.0}, {"max_train": 0}, {"max_held_out": -1}]
)
def test_impossible_values_name_their_field(wrong):
    with pytest.raises(ConfigError) as caught:
        gsm8k.Config(**wrong)
    assert caught.value.where == next(iter(wrong))


def test_an_ungradable_gold_is_reported_with_its_row():
    def verify(completion, gold):
        assert completion.endswith(f"#### {gold}")
        readable = gold.lstrip("-").isdigit()
        return RewardOut(
            value=1.0 if readable else None,
            verdict=Verdict.CORRECT if readable else Verdict.UNPARSABLE,
            reason="match/rational" if readable else "gold/words",
        )

    prompts = build([row(1), row(0, "#### about four"), row(-3)], [row(1)]).train()
    report = common.validate(prompts, verify, reference=gsm8k.reference)
    assert [(r.prompt_id, r.gold, r.reason) for r in report.refused] == [
        ("gsm8k-train-2", "about four", "gold/words"),
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not here")
def test_the_real_rows_all_have_a_numeric_gold():
    config = gsm8k.Config(train=str(SHARED / "gsm8k_train.jsonl"), test=str(SHARED / "gsm8k_test.jsonl"))
    task = gsm8k.build(config, seed=0, rows=sources.rows)
    assert (len(task.train()), len(task.held_out())) == (2000, 500)
    for prompt in (*task.train(), *task.held_out()):
        float(prompt.gold)
        assert "<<" not in prompt.solution and prompt.solution.endswith(f"\n#### {prompt.gold}")
