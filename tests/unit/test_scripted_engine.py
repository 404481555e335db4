"""The scripted engine keeps the protocol of a real one: who gets which text, how samples end, versions, failures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from tiny_model import CONTEXT, EOS_ID, ids

from rlhf.core.config import build_component
from rlhf.core.errors import ConfigError
from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling
from rlhf.core.seeding import trajectory_id
from rlhf.core.types import Completion, Message, Prompt, Request, StopReason
from rlhf.loops.rollouts import sample_groups
from rlhf.runtime.local import LocalEngine
from rollout.scripted_engine import Config, ScriptedEngine, ScriptedFailure


def engine(**settings: Any) -> ScriptedEngine:
    return ScriptedEngine(tiny_model.model(), tiny_model.tokenizer(), Config(**settings))


def request(prompt_id: str = "sums-1", index: int = 0, *, prompt: str = "3+5=", seed: int = 0) -> Request:
    return Request(id=trajectory_id(0, 7, prompt_id, index), prompt_tokens=ids(prompt), seed=seed)


def one(made: ScriptedEngine, asked: Request | None = None, **sampling: Any) -> Completion:
    return made.generate([asked or request()], sampling=Sampling(**sampling))[0]


def test_sample_i_of_a_prompt_gets_text_i() -> None:
    made = engine(completions={"sums-1": ["1", "2", "3"], "4+4=": ["8"]}, default=["0"])
    asked = [request(index=i) for i in range(5)]
    asked += [request("sums-9~1", prompt="#4+4=#"), request("sums-9", 3, prompt="9=")]
    done = made.generate(asked, sampling=Sampling())
    assert [c.text for c in done] == ["1", "2", "3", "1", "2", "8", "0"]
    assert [c.request_id for c in done] == [r.id for r in asked]


def test_the_id_of_a_prompt_goes_before_a_piece_of_its_text() -> None:
    made = engine(completions={"3+5": ["b"], "a-0-b": ["c"]})
    assert one(made, request("a-0-b")).text == "c"


def test_a_prompt_that_nobody_wrote_for_is_an_error_that_shows_it() -> None:
    with pytest.raises(ConfigError, match=r"engine\.completions: there is no text for prompt 'sums-2': '3\+5='"):
        one(engine(completions={"sums-1": ["1"]}), request("sums-2"))


@pytest.mark.parametrize(
    ("sampling", "tokens", "text", "stop"),
    [
        ({}, (*ids("12#34"), EOS_ID), "12#34", StopReason.EOS),
        ({"max_tokens": 6}, (*ids("12#34"), EOS_ID), "12#34", StopReason.EOS),
        ({"max_tokens": 5}, ids("12#34"), "12#34", StopReason.LENGTH),
        ({"max_tokens": 2}, ids("12"), "12", StopReason.LENGTH),
        ({"stop": ["#3", "5"]}, ids("12#3"), "12", StopReason.STOP_STRING),
        ({"stop": ["#3"], "max_tokens": 3}, ids("12#"), "12#", StopReason.LENGTH),
        ({"stop": ["4"]}, ids("12#34"), "12#3", StopReason.STOP_STRING),
    ],
)
def test_samples_end_as_real_ones_do(sampling: dict[str, Any], tokens: tuple[int, ...], text: str, stop: Any) -> None:
    done = one(engine(default=["12#34"]), **sampling)
    assert (done.tokens, done.text, done.stop) == (tokens, text, stop)


def test_the_context_ends_a_sample_too() -> None:
    made = engine(default=["1234"])
    short = one(made, request(prompt="1" * (CONTEXT - 2)))
    assert (short.text, short.stop) == ("12", StopReason.LENGTH)
    full = one(made, request(prompt="1" * CONTEXT))
    assert (full.tokens, full.logprobs, full.text, full.stop) == ((), (), "", StopReason.ABORTED)


def test_log_probs_are_valid_and_follow_the_seed() -> None:
    made = engine(default=["123456789"])
    first, again, other = (one(made, request(seed=seed)) for seed in (1, 1, 2))
    assert first == again and first.logprobs != other.logprobs
    assert len(first.logprobs) == len(first.tokens) == 10
    assert all(-3 < x < 0 for x in first.logprobs) and len(set(first.logprobs)) == 10


def test_versions_follow_weights_whose_names_and_shapes_are_checked() -> None:
    made, model = engine(default=["1"]), tiny_model.model()
    made.load_weights(4, model.named_parameters())
    assert made.version == one(made).policy_version == 4
    with pytest.raises(KeyError, match="unknown"):
        made.load_weights(5, [("unknown", torch.zeros(1))])
    with pytest.raises(ValueError, match=r"model\.norm\.weight is \(2,\), not \(32,\)"):
        made.load_weights(5, [("model.norm.weight", torch.zeros(2))])
    assert made.version == 4


def test_it_fails_and_pauses_on_request() -> None:
    made = engine(default=["1"], fail_calls=[2])
    assert one(made).text == "1"
    with pytest.raises(ScriptedFailure, match="call 2"):
        one(made)
    assert one(made).text == "1"
    made.pause()
    with pytest.raises(AssertionError, match="weights are being loaded"):
        one(made)
    made.resume()
    assert one(made).text == "1"


def test_a_group_is_sampled_through_the_loops_own_path() -> None:
    prompts = [
        Prompt(id=f"sums-{i}", messages=(Message(role="user", content=f"{i}+1="),), gold=str(i + 1), task="sums")
        for i in (3, 4)
    ]
    made = LocalEngine(engine(completions={"sums-3": ["4", "5"], "4+1=": ["6"]}))
    groups = asyncio.run(
        sample_groups(made, prompts, tokenizer=tiny_model.tokenizer(), sampling=Sampling(), seed=5, step=2, count=3)
    )
    assert [g.prompt.id for g in groups] == ["sums-3", "sums-4"]
    assert [[t.text for t in g.trajectories] for g in groups] == [["4", "5", "4"], ["6", "6", "6"]]
    assert [[t.index for t in g.trajectories] for g in groups] == [[0, 1, 2]] * 2
    last = groups[1].trajectories[2]
    assert (last.id, last.prompt_id) == ("5-2-sums-4-2", "sums-4")
    assert len({t.seed for g in groups for t in g.trajectories}) == 6
    assert tiny_model.tokenizer().decode(list(last.prompt_tokens)) == "<|user|>4+1=<|assistant|>"


def test_it_is_built_like_any_engine() -> None:
    chosen = build_component("rollout", {"name": "scripted_engine", "default": ["12"]}, "engine")
    spec = EngineSpec(
        path=Path("unused"),
        dtype="float32",
        device="cpu",
        trust_remote_code=False,
        load=lambda: (tiny_model.model(), tiny_model.tokenizer()),
        open=lambda path: (tiny_model.model(), tiny_model.tokenizer()),
    )
    assert one(chosen.module.build(chosen.config, spec)).text == "12"


@pytest.mark.parametrize("settings", [{}, {"completions": {"a": []}}])
def test_a_script_without_text_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"completions: there is no"):
        Config(**settings)
