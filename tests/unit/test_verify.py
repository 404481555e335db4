"""Which answers are judged, what judgements are worth, and what of them is measured and trained on."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_model

from rlhf.core.errors import ConfigError
from rlhf.core.metrics import values
from rlhf.core.sampling import Sampling
from rlhf.core.types import Group, Message, Prompt, RewardOut, StopReason, Trajectory, Verdict
from rlhf.data.judging import Judging
from rlhf.loops import online, records, verify
from rlhf.loops.stage import JUDGES, sample_rows
from rlhf.loops.verify import VerifyConfig
from rlhf.runtime.local import LocalEngine
from rollout.scripted_engine import Config as Script
from rollout.scripted_engine import ScriptedEngine

JUDGING = Judging(template="{question}{answer}#", right="a", wrong="b")
LETTERS = {"r": Verdict.CORRECT, "w": Verdict.WRONG, "n": Verdict.NO_ANSWER, "u": Verdict.UNPARSABLE}


def cfg(**settings: Any) -> VerifyConfig:
    return VerifyConfig(**({"share": 1.0, "samples": 2, "judging": JUDGING} | settings))


def answered(name: str, outcomes: str) -> Group:
    """Answers `0`, `1`, … to a question: right, wrong, none, unparsable, or `c` for not graded."""
    prompt = Prompt(id=name, messages=(Message(role="user", content=f"{name}="),), gold="7", task="sums")
    trajectories = tuple(
        Trajectory(
            id=f"0-5-{name}-{i}",
            prompt_id=name,
            index=i,
            prompt_tokens=(1, 2),
            tokens=(3,),
            logprobs=(-0.5,),
            text=str(i),
            stop=StopReason.EOS,
            policy_version=4,
            seed=0,
        )
        for i in range(len(outcomes))
    )
    rewards = tuple(
        RewardOut(value=None, verdict=Verdict.CRASH)
        if letter == "c"
        else RewardOut(value=float(letter == "r"), verdict=LETTERS[letter])
        for letter in outcomes
    )
    return Group(prompt=prompt, trajectories=trajectories, rewards=rewards)


def judged(scored: list[Group], texts: dict[str, list[str]] | None = None, **settings: Any) -> list[Group]:
    """Judgements by a scripted engine, which calls everything right unless told otherwise."""
    script = Script(completions=texts or {}, default=["a"])
    engine = LocalEngine(ScriptedEngine(tiny_model.model(), tiny_model.tokenizer(), script))
    stage: Any = SimpleNamespace(
        engine=engine, tokenizer=tiny_model.tokenizer(), sampling=Sampling(max_tokens=8), seed=3
    )
    return asyncio.run(verify.judgements(cfg(**settings), scored, stage=stage, step=5, with_greedy=False))


def test_every_answer_that_was_read_is_judged() -> None:
    found = judged([answered("12", "rwn"), answered("34", "ucr")])
    assert [g.prompt.id for g in found] == ["12:0", "12:1", "12:2", "34:2"]
    assert [g.prompt.gold for g in found] == ["a", "b", "b", "a"]
    assert [g.prompt.messages[-1].content for g in found] == ["12=0#", "12=1#", "12=2#", "34=2#"]
    assert [g.prompt.columns[JUDGES] for g in found] == ["0-5-12-0", "0-5-12-1", "0-5-12-2", "0-5-34-2"]
    assert all(len(g.trajectories) == 2 and verify.judges(g) for g in found)
    assert [t.id for t in found[1].trajectories] == ["3-5-12:1-0", "3-5-12:1-1"]


def test_a_share_is_spread_over_the_questions() -> None:
    scored = [answered(name, "rwrw") for name in ("12", "34", "56")] + [answered("78", "r")]
    for share, expected in ((0.3, [1, 1, 1, 1]), (0.5, [2, 2, 1, 1]), (0.7, [3, 3, 2, 1]), (1.0, [4, 4, 4, 1])):
        found = Counter(g.prompt.id.split(":")[0] for g in judged(scored, share=share))
        assert [found[name] for name in ("12", "34", "56", "78")] == expected, share
    assert judged(scored, share=0.3) == judged(scored, share=0.3)
    several = {g.prompt.id for seed in range(8) for g in judged([answered(f"{seed}0", "rwrw")], share=0.25)}
    assert len({name.split(":")[1] for name in several}) > 1, "not always the same place"


@pytest.mark.parametrize(
    ("share", "outcomes", "expected"),
    [
        (1.0, ["rrrw", "rrrr", "wrrr"], (2, 2)),
        (0.5, ["rrww", "rwrw", "wwww"], (3, 3)),
        (1.0, ["wwww", "wwrn"], (1, 1)),
        (1.0, ["rrrr"], (0, 0)),
    ],
)
def test_right_and_wrong_answers_can_be_balanced(share: float, outcomes: list[str], expected: tuple[int, int]) -> None:
    scored = [answered(f"{n}{n}", letters) for n, letters in enumerate(outcomes)]
    golds = Counter(g.prompt.gold for g in judged(scored, share=share, balance=True))
    assert (golds["a"], golds["b"]) == expected


def test_a_verdict_is_worth_what_the_verifier_makes_of_it() -> None:
    texts = {"12:0": ["a", "b"], "12:1": ["a", "b1a#b"], "12:2": ["1", ""]}
    found = judged([answered("12", "rwn")], texts)
    assert [[out.value for out in g.rewards] for g in found] == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert [[out.extracted for out in g.rewards] for g in found] == [["a", "b"], ["a", "b"], [None, None]]
    reasons = [out.reason for g in found for out in g.rewards]
    assert (
        reasons == ["verdict/agrees", "verdict/differs"] + ["verdict/differs", "verdict/agrees"] + ["verdict/none"] * 2
    )
    assert found[2].rewards[0].verdict is Verdict.NO_ANSWER


def test_measures_by_hand() -> None:
    """Of 4 judgements of wrong answers 2 are found; 3 call something wrong, 1 of them wrongly; 1 says nothing."""
    texts = {"12:0": ["a", "b"], "12:1": ["b", "1"], "12:2": ["b", "a"]}
    found = values(verify.metrics(cfg(), judged([answered("12", "rww")], texts)))
    assert found == pytest.approx(
        {
            "verify/answers": 3,
            "verify/samples": 6,
            "verify/accuracy": 3 / 6,
            "verify/balanced_accuracy": (1 / 2 + 2 / 4) / 2,
            "verify/precision": 2 / 3,
            "verify/recall": 2 / 4,
            "verify/f1": 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2),
            "verify/no_verdict": 1 / 6,
            "verify/wrong_share": 4 / 6,
        }
    )
    only_right = values(verify.metrics(cfg(), judged([answered("12", "rr")])))
    assert "verify/f1" not in only_right and only_right["verify/accuracy"] == 1.0


def test_advantages_of_judgements_have_a_weight() -> None:
    answers, judgements = answered("12", "rw"), judged([answered("12", "rw")])[0]
    rows = [[(1.0,), (-1.0,)], [(0.5, 0.5), None]]
    assert verify.weighted(cfg(weight=0.25), [answers, judgements], rows) == [[(1.0,), (-1.0,)], [(0.125, 0.125), None]]
    assert verify.weighted(cfg(), [answers, judgements], rows) == rows


def test_a_judgement_comes_back_from_its_record() -> None:
    answers = answered("12", "rw")
    found = judged([answers], {"12:1": ["b"]})
    written = list(sample_rows([answers, *found], {}, step=5, stage="rl"))
    assert [row.get(JUDGES) for row in written] == [None, None] + ["0-5-12-0"] * 2 + ["0-5-12-1"] * 2
    again = records.groups(written)
    assert [verify.judges(g) for g in again] == [False, True, True]
    for group, read in zip(found, again[1:], strict=True):
        assert read.rewards == group.rewards and read.prompt.gold == group.prompt.gold
        assert read.prompt.columns == group.prompt.columns and read.prompt.messages == group.prompt.messages
        assert verify.graded(cfg(), replace(read, rewards=())).rewards == group.rewards


@pytest.mark.parametrize(
    ("wrong", "field"), [({"share": 1.5}, "share"), ({"samples": 0}, "samples"), ({"weight": -1.0}, "weight")]
)
def test_impossible_settings_name_their_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cfg(**wrong)
    assert caught.value.where == field
    assert not VerifyConfig().on


def test_a_share_that_judges_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"verify.share: 0.01 of the 20 answers of a step is none"):
        online.Config(prompts_per_step=5, samples_per_prompt=4, verify=cfg(share=0.01))
    said = online.batch_arithmetic(online.Config(prompts_per_step=5, samples_per_prompt=4, verify=cfg(share=0.1)))
    assert said["verify"].startswith("2 of 20 answers × 2 judgements = 4 further samples per step")
