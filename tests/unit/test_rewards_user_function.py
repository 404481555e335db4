"""User functions of both kinds, in a worker and in process: what they are given, and what becomes of what they do."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from rewards.pool import WorkerPool
from rewards.user_function import Config, score
from rlhf.core.component import as_component
from rlhf.core.errors import ConfigError
from rlhf.core.types import Group, Json, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict

FUNCTIONS = """
import math, os, time

SEEN = []

def accuracy(prompts, completions, **columns):
    return [float(text == gold) for text, gold in zip(completions, columns["gold"])]

def exact(completions, answer): return [1 if c == a else 0 for c, a in zip(completions, answer)]

def tell(prompts, completions, **columns):
    expected = {"answer", "solution", "gold", "level", "tags", "prompts", "completions"}
    seen = columns | {"prompts": prompts, "completions": completions}
    assert seen.keys() == expected, seen.keys()
    assert prompts == ["1+1="] * 2, prompts
    assert columns["gold"] == columns["answer"] == ["2", "2"], columns
    assert columns["solution"] == ["1+1=2"] * 2, columns
    assert columns["level"] == [3, 3] and columns["tags"] == [["a", "b"]] * 2, columns
    return [0.25, 0.0]

def shadow(completions, answer, solution, gold):
    assert answer == ["two"] and solution == ["none"] and gold == ["2"]
    return [1.0]

def sometimes(completions, **kwargs): return [{"skip": None, "nan": math.nan}.get(c, 1.0) for c in completions]
def short(completions, **kwargs): return [1.0]
def raises(completions, **kwargs): raise ZeroDivisionError("no")
def hangs(completions, **kwargs): time.sleep(60)
def ends(completions, **kwargs): os._exit(1)
def numbers(completions, **kwargs):
    import fractions
    return tuple(fractions.Fraction(1, 2) for _ in completions)

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source == "sums" and extra_info == {"level": 3, "tags": ["a", "b"]}, (data_source, extra_info)
    if solution_str == "raise": raise RuntimeError("boom")
    return float(solution_str == ground_truth)

def detailed(solution_str, ground_truth, **kwargs):
    return {"score": 0.5, "acc": True, "note": "text", "loss": math.inf}

def scoreless(solution_str, ground_truth): return {"acc": 1.0}
def neither(question, reply): return 1.0
def wants_more(completions, difficulty): return [0.0 for _ in completions]
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "graders_of_a_user.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "graders_of_a_user"


@pytest.fixture(scope="module")
def pool(functions: str) -> Iterator[WorkerPool]:
    with WorkerPool() as opened:
        yield opened


def group(
    *texts: str, columns: dict[str, Json] | None = None, solution: str | None = "1+1=2", task: str = "sums"
) -> Group:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content="1+1="))
    rest: dict[str, Json] = {"level": 3, "tags": ("a", "b")} if columns is None else columns
    prompt = Prompt(id="p", messages=messages, gold="2", task=task, solution=solution, columns=rest)
    trajectories = tuple(
        Trajectory(
            id=f"0-0-p-{n}", prompt_id="p", index=n, prompt_tokens=(1,), tokens=(2,), logprobs=(-0.5,), text=text,
            stop=StopReason.EOS, policy_version=0, seed=n,
        )
        for n, text in enumerate(texts)
    )  # fmt: skip
    return Group(prompt=prompt, trajectories=trajectories)


def graded(pool: WorkerPool, name: str, *texts: str, isolate: bool = True, timeout_s: float = 10.0) -> list[RewardOut]:
    cfg = Config(path=f"graders_of_a_user.{name}", isolate=isolate, timeout_s=timeout_s)
    return score(group(*texts), cfg, pool)


@pytest.mark.parametrize("isolate", [True, False])
def test_a_trl_function_grades_a_group_in_one_call(pool: WorkerPool, isolate: bool) -> None:
    right, wrong = graded(pool, "accuracy", "2", "3", isolate=isolate)
    assert (right.value, right.verdict, right.reason) == (1.0, Verdict.CORRECT, "user/score")
    assert (wrong.value, wrong.verdict) == (0.0, Verdict.WRONG)


@pytest.mark.parametrize("isolate", [True, False])
def test_a_trl_function_gets_prompts_and_columns_as_lists(pool: WorkerPool, isolate: bool) -> None:
    assert [out.value for out in graded(pool, "tell", "x", "y", isolate=isolate)] == [0.25, 0.0]


def test_a_trl_function_without_prompts_or_kwargs_gets_what_it_names(pool: WorkerPool) -> None:
    assert [out.value for out in graded(pool, "exact", "2", "3")] == [1.0, 0.0]


def test_columns_of_the_row_come_before_the_names_we_add_but_gold_is_the_gold(pool: WorkerPool) -> None:
    rows = group("x", columns={"answer": "two", "solution": "none", "gold": "other"})
    [out] = score(rows, Config(path="graders_of_a_user.shadow"), pool)
    assert out.value == 1.0


@pytest.mark.parametrize("isolate", [True, False])
def test_a_verl_function_grades_one_completion_per_call(pool: WorkerPool, isolate: bool) -> None:
    outs = graded(pool, "compute_score", "2", "raise", "3", isolate=isolate)
    assert [out.value for out in outs] == [1.0, None, 0.0]
    assert (outs[1].verdict, outs[1].reason) == (Verdict.CRASH, "crash/RuntimeError")


def test_the_numbers_of_a_verl_dictionary_go_to_the_breakdown(pool: WorkerPool) -> None:
    [out] = graded(pool, "detailed", "2")
    assert (out.value, out.verdict) == (0.5, Verdict.CORRECT)
    assert out.breakdown == {"acc": 1.0, "loss": None}
    [out] = graded(pool, "scoreless", "2")
    assert (out.value, out.reason) == (None, "crash/no_score")


def test_none_skips_and_nan_crashes(pool: WorkerPool) -> None:
    skipped, crashed, good = graded(pool, "sometimes", "skip", "nan", "x")
    assert (skipped.value, skipped.verdict) == (None, Verdict.SKIPPED)
    assert (crashed.value, crashed.verdict, crashed.reason) == (None, Verdict.CRASH, "crash/not_finite")
    assert good.value == 1.0


def test_numbers_of_any_type_become_floats(pool: WorkerPool) -> None:
    assert [out.value for out in graded(pool, "numbers", "x", "y")] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("short", "crash/wrong_length"), ("raises", "crash/ZeroDivisionError"), ("ends", "crash/died")],
)
def test_what_goes_wrong_is_a_crash_for_the_whole_group(pool: WorkerPool, name: str, reason: str) -> None:
    outs = graded(pool, name, "x", "y")
    assert [(out.value, out.verdict, out.reason) for out in outs] == [(None, Verdict.CRASH, reason)] * 2
    assert graded(pool, "accuracy", "2")[0].value == 1.0


def test_exceptions_in_process_are_crashes_too(pool: WorkerPool) -> None:
    [out] = graded(pool, "raises", "x", isolate=False)
    assert (out.value, out.reason) == (None, "crash/ZeroDivisionError")


def test_a_function_that_hangs_is_a_timeout(pool: WorkerPool) -> None:
    [out] = graded(pool, "hangs", "x", timeout_s=0.3)
    assert (out.value, out.verdict, out.reason) == (None, Verdict.TIMEOUT, "timeout/user")


@pytest.mark.parametrize("isolate", [True, False])
def test_parameters_that_fit_neither_kind_name_both(pool: WorkerPool, isolate: bool) -> None:
    with pytest.raises(ConfigError, match=r"(?s)\(question, reply\).*completions.*solution_str"):
        graded(pool, "neither", "x", isolate=isolate)
    with pytest.raises(ConfigError, match="needs difficulty"):
        graded(pool, "wants_more", "x", isolate=isolate)


@pytest.mark.parametrize("isolate", [True, False])
def test_a_function_that_cannot_be_found_is_the_users_error(pool: WorkerPool, isolate: bool) -> None:
    with pytest.raises(ConfigError, match="no function 'absent'"):
        graded(pool, "absent", "x", isolate=isolate)
    with pytest.raises(ConfigError, match="cannot import 'no_such_lab'"):
        score(group("x"), Config(path="no_such_lab.f", isolate=isolate), pool)


def test_a_dotted_name_of_a_function_stands_for_this_component(functions: str) -> None:
    assert as_component("rewards", "graders_of_a_user.accuracy") == (
        "user_function",
        {"path": "graders_of_a_user.accuracy"},
    )


def test_the_path_is_required() -> None:
    with pytest.raises(ConfigError, match="path: is required"):
        Config()
    with pytest.raises(ConfigError, match="names no module"):
        Config(path="accuracy")
    with pytest.raises(ConfigError, match="timeout_s"):
        Config(path="a.b", timeout_s=0)
    with pytest.raises(ConfigError, match="weight"):
        Config(path="a.b", weight=math.inf)
