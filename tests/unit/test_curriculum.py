"""What a stage draws by what it knows: in proportion, never twice at once, and again the same from a checkpoint."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from rlhf.core import config
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.seeding import content_key
from rlhf.core.types import Group, Message, Prompt, RewardOut, Verdict
from rlhf.loops import curriculum
from rlhf.loops.boundary import Tally
from rlhf.loops.curriculum import Curriculum, CurriculumConfig

PROMPTS = [
    Prompt(
        id=f"p{n}",
        messages=(Message(role="user", content=str(n)),),
        gold="1",
        task="even" if n % 2 == 0 else "odd",
        columns={"level": n},
    )
    for n in range(12)
]


def settings(**tree: Any) -> CurriculumConfig:
    return config.build(CurriculumConfig, {"by": {"learnability": {}}} | tree)


def made(cfg: CurriculumConfig, *, total: int = 48, **changes: Any) -> Curriculum:
    return Curriculum(cfg, PROMPTS, **{"seed": 0, "name": "rl", "total": total, "profile": {}} | changes)


def answered(prompt: Prompt, *right: bool | None) -> Group:
    """A group whose answers are right, wrong, or could not be graded."""
    outs = {
        True: RewardOut(value=1.0, verdict=Verdict.CORRECT),
        False: RewardOut(value=0.0, verdict=Verdict.WRONG),
        None: RewardOut(value=None, verdict=Verdict.TIMEOUT),
    }
    return Group(prompt=prompt, trajectories=(), rewards=tuple(outs[r] for r in right))


def right(prompt: Prompt) -> tuple[bool, bool]:
    """Prompts up to p3 are always right, from p8 on never."""
    number = int(prompt.messages[0].content)
    return (number < 8, number < 4)


def run(stream: Curriculum, cursor: int, *, steps: int, count: int = 4) -> list[list[str]]:
    drawn: list[list[str]] = []
    for _ in range(steps):
        prompts = stream.take(cursor, count)
        cursor += count
        stream.settle([answered(prompt, *right(prompt)) for prompt in prompts])
        drawn.append([prompt.id for prompt in prompts])
    return drawn


@pytest.mark.parametrize("by", [{"learnability": {}}, {"easy_to_hard": {"column": "level"}}, {"learning_progress": {}}])
def test_from_a_checkpoint_on_the_same_is_drawn(by: dict[str, Any]) -> None:
    whole, first = made(settings(by=by)), made(settings(by=by))
    drawn = run(whole, 0, steps=10)
    assert run(first, 0, steps=4) == drawn[:4]
    saved = json.loads(json.dumps(first.state()))
    first.take(16, 4)
    assert first.state() == saved, "what is in flight is drawn again"
    again = made(settings(by=by))
    again.restore(saved)
    assert run(again, 16, steps=6) == drawn[4:]
    assert again.state() == whole.state()
    assert (
        run(made(settings(by=by), seed=1), 0, steps=4) != drawn[:4] != run(made(settings(by=by), name="x"), 0, steps=4)
    )


def test_prompts_of_medium_difficulty_are_drawn_most() -> None:
    stream = made(settings(), total=2000)
    drawn = Counter(name.partition("~")[0] for step in run(stream, 0, steps=200) for name in step)
    middle = sum(drawn[f"p{n}"] for n in range(4, 8))
    assert middle > 2 * (800 - middle) and min(drawn[f"p{n}"] for n in range(12)) > 0


def test_an_id_is_never_given_twice_and_nothing_twice_at_once() -> None:
    stream = made(settings())
    ids = [name for step in run(stream, 0, steps=20) for name in step]
    assert len(set(ids)) == len(ids)
    two_steps = [*stream.take(80, 6), *stream.take(86, 6)]
    assert len({prompt.messages for prompt in two_steps}) == 12
    assert len({prompt.id for prompt in [*two_steps, *stream.take(92, 30)]}) == 42


def test_what_is_known_is_a_running_mean_of_graded_answers() -> None:
    stream = made(settings(memory=0.5, fast=0.5, slow=0.75))
    prompts = {prompt.messages[0].content: prompt for prompt in stream.take(0, 12)}
    rows = [answered(prompts["0"], True, False), answered(prompts["1"], None), answered(prompts["2"], True, None)]
    metrics = stream.settle([*rows, answered(replace(PROMPTS[0], id="a judgement"), False)])
    state: Any = stream.state()
    assert state["prompts"] == {"p0": [1, 1, 0.5], "p1": [1, 0, None], "p2": [1, 1, 1.0]}
    assert state["groups"] == {"even": {"seen": 1, "fast": 0.75, "slow": 0.75}}
    assert metrics["curriculum/seen"].value == 2 / 12 and "curriculum/expected" not in metrics
    assert metrics["curriculum/share/even"].value == pytest.approx(2 / 3)
    stream.settle([answered(prompts[name], False) for name in prompts if name not in "012"])
    [again] = [prompt for prompt in stream.take(12, 12) if prompt.id == "p0~1"]
    metrics = stream.settle([answered(again, False)])
    state = stream.state()
    assert state["prompts"]["p0"] == [2, 2, 0.25] and metrics["curriculum/expected"].value == 0.5
    assert state["groups"]["even"] == {"seen": 3, "fast": 0.1875, "slow": pytest.approx(0.75**3)}


def test_a_profile_is_where_knowledge_begins_and_groups_may_be_a_column() -> None:
    known = {content_key(prompt): Tally(4, 4 - n % 4, 0) for n, prompt in enumerate(PROMPTS)}
    cfg = settings(by={"easy_to_hard": {"start": 0.25}}, profile="probe", group="level")
    stream = made(cfg, profile=known)
    assert sorted(prompt.id for prompt in stream.take(0, 3)) == ["p0", "p4", "p8"]
    with pytest.raises(DataError, match=r"^prompt p0: nothing says"):
        made(cfg).take(0, 3)


def test_rules_are_multiplied_and_one_of_them_must_leave_something() -> None:
    stream = made(settings(by={"easy_to_hard": {"column": "level", "start": 0.25}, "learning_progress": {}}))
    assert sorted(prompt.id for prompt in stream.take(0, 3)) == ["p0", "p1", "p2"]
    assert stream.settle([])["curriculum/open"].value == 0.25


def test_what_can_be_seen_before_a_stage_is() -> None:
    with pytest.raises(DataError, match="its column 'nothing' says None"):
        curriculum.check(settings(by={"easy_to_hard": {"column": "nothing"}}), PROMPTS)
    curriculum.check(settings(by={"easy_to_hard": {}}, profile="probe"), PROMPTS)
    curriculum.check(CurriculumConfig(), PROMPTS)


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"by": {}, "profile": "probe"}, "profile: nothing goes by"),
        ({"memory": 1.0}, "memory: "),
        ({"fast": 0.9, "slow": 0.8}, "fast: "),
        ({"by": {"hardest": {}}}, r"by\.hardest\.name: there is no 'hardest'"),
    ],
)
def test_impossible_settings_are_refused(tree: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{problem}.*\n  fix: "):
        settings(**tree)
