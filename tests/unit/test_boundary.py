"""What a policy knows: probed when it is due, kept over kills, newer weights before older, and given to rewards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulation import EveryOther, SimulatedEngine, Simulation, turns

from rlhf.core import config
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.outcomes import SELF_ACCURACY
from rlhf.core.seeding import content_key
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict
from rlhf.data.build.boundary import rows
from rlhf.loops import boundary, generate, settings, summary
from rlhf.loops.boundary import BoundaryConfig, Tally

PROMPTS, STEPS, PER_STEP = 10, 6, 2
COUNTED = {"build": "boundary", "select": "all"}


def question(name: str) -> Prompt:
    return Prompt(id=name, messages=(Message(role="user", content=f"{name}="),), gold="1", task="numbers")


def group(name: str, verdicts: str, *, version: int = 0) -> Group:
    """Answers by letter: right, wrong, declined, not graded."""
    kinds = {"r": Verdict.CORRECT, "w": Verdict.WRONG, "d": Verdict.REFUSED, "n": Verdict.CRASH}
    trajectories = tuple(
        Trajectory(
            id=f"0-3-{name}-{n}", prompt_id=name, index=n, prompt_tokens=(1,), tokens=(2,), logprobs=(-0.5,), text="",
            stop=StopReason.EOS, policy_version=version, seed=n,
        )
        for n in range(len(verdicts))
    )  # fmt: skip
    rewards = tuple(RewardOut(value=None if v == "n" else 0.0, verdict=kinds[v]) for v in verdicts)
    return Group(prompt=question(name), trajectories=trajectories, rewards=rewards)


def test_a_row_counts_answers_apart_from_refusals_and_from_what_was_not_graded() -> None:
    [row] = rows([group("a", "rrwddn", version=7)])
    assert row == {
        "content": content_key(question("a")),
        "prompt_id": "a",
        "samples": 6,
        "answered": 3,
        "correct": 2,
        "refused": 2,
        SELF_ACCURACY: 2 / 3,
        "step": 3,
        "policy_version": 7,
    }
    [row] = rows([group("a", "dd")])
    assert (row["answered"], row[SELF_ACCURACY]) == (0, None)


def test_a_reward_that_only_measures_tells_of_refusals_too() -> None:
    given = group("a", "rw")
    marked = [replace(r, breakdown={"math": 0.0, "refusal/refused": float(n)}) for n, r in enumerate(given.rewards)]
    [row] = rows([replace(given, rewards=tuple(marked))])
    assert (row["answered"], row["correct"], row["refused"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([("rw", 0)], (2, 1, 0)),
        ([("rw", 0), ("rr", 0)], (4, 3, 0)),
        ([("rw", 0), ("wwww", 5)], (4, 0, 5)),
        ([("rw", 0), ("dddd", 5)], (2, 1, 0)),
        ([("dd", 0), ("r", 0)], (1, 1, 0)),
    ],
)
def test_newer_weights_replace_older_ones_unless_they_refused(
    found: list[tuple[str, int]], expected: tuple[int, int, int]
) -> None:
    lines = [row for verdicts, version in found for row in rows([group("a", verdicts, version=version)])]
    assert boundary.joined({}, lines) == {content_key(question("a")): Tally(*expected)}


def test_a_prompt_gets_what_is_known_of_its_question_whatever_it_is_called() -> None:
    tallies = {content_key(question("a")): Tally(4, 3, 0), content_key(question("b")): Tally(0, 0, 0)}
    assert boundary.attached(replace(question("a"), id="a~2"), tallies).columns == {SELF_ACCURACY: 0.75}
    for name in ("b", "c"):
        assert boundary.attached(question(name), tallies) == question(name)


class Noting(EveryOther):
    """Notes what came with each prompt that was graded."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    async def grade(self, groups: Sequence[Group]) -> list[Group]:
        self.seen += [(g.prompt.id, g.prompt.columns.get(SELF_ACCURACY)) for g in groups]
        return await super().grade(groups)


def simulation(path: Path, **keys: Any) -> Simulation:
    settings = {"steps": STEPS, "prompts_per_step": PER_STEP, "samples_per_prompt": 2} | keys
    engine = SimulatedEngine(lambda: 3, wait=turns)
    made = Simulation(
        path=path,
        keys=settings,
        engine=engine,
        train_seconds=lambda: 2,
        wait=turns,
        prompts=PROMPTS,
        checkpoint_every=2,
    )
    made.grader = Noting()
    return made


def log(path: Path) -> list[dict[str, Any]]:
    text = (path / "data" / "rl.boundary.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def trained(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("every", "steps"), [(0, [1]), (2, [1, 3, 5]), (4, [1, 5]), (9, [1])])
def test_it_probes_what_the_coming_steps_will_ask(every: int, steps: list[int], tmp_path: Path) -> None:
    made = simulation(tmp_path, boundary={"samples": 4, "every": every})
    asyncio.run(made.run())
    found = log(tmp_path)
    assert sorted({row["step"] for row in found}) == steps
    asked = {(s["step"], s["prompt_id"].partition("~")[0]) for s in trained(tmp_path)}
    for step, end in zip(steps, [*steps[1:], STEPS + 1], strict=True):
        probed = {row["prompt_id"].partition("~")[0] for row in found if row["step"] == step}
        assert probed == {name for at, name in asked if step <= at < end}
    assert all(row["samples"] == 4 and row["policy_version"] == row["step"] - 1 for row in found)
    assert isinstance(made.grader, Noting)
    of_training = [share for _, share in made.grader.seen if share is not None]
    assert of_training == [0.5] * (STEPS * PER_STEP), "two of four right, for every prompt that was trained on"


def test_it_costs_nothing_by_default(tmp_path: Path) -> None:
    made = simulation(tmp_path)
    asyncio.run(made.run())
    assert not (tmp_path / "data").exists()
    assert isinstance(made.grader, Noting) and all(share is None for _, share in made.grader.seen)


def test_a_source_is_what_is_known_at_first(tmp_path: Path) -> None:
    source = tmp_path / "known.jsonl"
    lines = [
        {"content": content_key(question(str(n))), "answered": 4, "correct": n % 5, "policy_version": 0}
        for n in range(9)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in lines))
    made = simulation(tmp_path / "run", boundary={"source": str(source), "samples": 4, "every": 4})
    (tmp_path / "run").mkdir()
    asyncio.run(made.run())
    assert {row["step"] for row in log(tmp_path / "run")} == {5}
    assert isinstance(made.grader, Noting)
    first = [(name, share) for name, share in made.grader.seen[: 4 * PER_STEP]]
    expected = {f"q{n}": n % 5 / 4 for n in range(9)} | {"q9": None}
    assert dict(first) == {name: expected[name] for name, _ in first}


def test_a_killed_run_goes_on_with_the_same_boundary(tmp_path: Path) -> None:
    whole, cut = simulation(tmp_path / "whole", boundary={"samples": 4, "every": 2}), tmp_path / "cut"
    for folder in (tmp_path / "whole", cut):
        folder.mkdir()
    asyncio.run(whole.run())

    async def killed(moments: int) -> int:
        """Steps that were done when it was killed."""
        made = simulation(cut, boundary={"samples": 4, "every": 2})
        run = asyncio.create_task(made.run())
        await asyncio.wait([run, asyncio.create_task(turns(moments))], return_when="FIRST_COMPLETED")
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        return len((cut / "metrics.jsonl").read_text().splitlines())

    assert [asyncio.run(killed(moments)) for moments in (22, 12)] == [3, 4], "the first between two checkpoints"
    asyncio.run(simulation(cut, boundary={"samples": 4, "every": 2}).run())
    assert log(cut) == log(tmp_path / "whole")
    assert trained(cut) == trained(tmp_path / "whole")


def test_what_was_known_at_a_step_can_be_read_afterwards(tmp_path: Path) -> None:
    asyncio.run(simulation(tmp_path, boundary={"samples": 4, "every": 2}).run())
    cfg = BoundaryConfig(samples=4, every=2)
    found = boundary.history(cfg, tmp_path / "data", stage="rl")
    assert found.steps == (1, 3, 5)
    at = [found.at(step) for step in range(STEPS + 1)]
    lines = log(tmp_path)
    assert at == [boundary.joined({}, (row for row in lines if row["step"] <= step)) for step in range(STEPS + 1)]
    assert at[0] == {} and len(at[1]) == 2 * PER_STEP and len(at[STEPS]) > len(at[1])
    boundary.copy(tmp_path / "data", tmp_path / "copied", until=2)
    assert boundary.history(cfg, tmp_path / "copied", stage="rl").at(STEPS) == at[1]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt_id": "a"}\n')
    with pytest.raises(DataError, match="does not say how often questions were answered"):
        boundary.read(tmp_path / "x.jsonl")
    with pytest.raises(DataError, match="there is no nowhere"):
        boundary.history(BoundaryConfig(source="nowhere"), tmp_path, stage="rl")


@pytest.mark.parametrize(
    ("wrong", "where"), [({"samples": -1}, "samples"), ({"every": -1}, "every"), ({"every": 2}, "every")]
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BoundaryConfig(**wrong)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("stages", "probe", "says"),
    [
        (["rl", "probe"], COUNTED, "neither a stage that comes before 'rl' nor a file"),
        (["probe", "rl"], {}, "does not say how often questions were answered"),
        (["rl"], {}, "neither a stage"),
    ],
)
def test_a_source_comes_before_and_says_what_is_known(
    stages: list[str], probe: dict[str, Any], says: str, tmp_path: Path
) -> None:
    tree = {
        "run": {"name": "x"},
        "model": {"init": "tiny"},
        "stages": stages,
        "probe": {"loop": "generate", **probe},
        "rl": {"loop": "online", "boundary": {"source": "probe"}},
    }
    with pytest.raises(ConfigError, match=says) as caught:
        settings.parse(config.Loaded(tmp_path, tree, (), {}))
    assert caught.value.where == "rl.boundary.source"


@pytest.mark.parametrize("keys", [{}, {"select": "correct"}, {"select": "all", "max_per_prompt": 2}])
def test_whole_groups_are_counted_or_none(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="counts every sample") as caught:
        config.build(generate.Config, {"build": "boundary", **keys}, "probe")
    assert caught.value.where == "probe.select"
    assert config.build(generate.Config, dict(COUNTED), "probe").build.name == "boundary"


def test_the_run_records_which_file_its_boundary_came_from(tmp_path: Path) -> None:
    source = tmp_path / "known.jsonl"
    source.write_text("{}\n")
    tree = {
        "run": {"name": "x"},
        "model": {"init": "tiny"},
        "stages": ["rl"],
        "rl": {"loop": "online", "boundary": {"source": str(source)}},
    }
    found = summary.environment(settings.parse(config.Loaded(tmp_path / "x.yaml", tree, (), {})), 1)
    assert list(found["data"]) == [str(source)] and found["data"][str(source)].startswith("sha256:")
