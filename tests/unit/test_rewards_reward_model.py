"""The reward of a reward model: what is read and where, what a score is worth, and what happens when there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from batches import group
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from rewards import reward_model
from rewards.base import WorkerError
from rewards.reward_model import Config, local_model
from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Transforms
from rlhf.core.training import Head
from rlhf.core.types import Group, Verdict
from rlhf.data.examples import pairs
from rlhf.data.packing import by_sample, pack
from rlhf.loops.beside import scored
from rlhf.models import forward, load

QUESTION = [{"role": "user", "content": "1+2="}]


def folder_of(kind: Any, path: Path, *, labels: int = 1) -> tuple[Path, Any]:
    """A model of this kind, with a head that says something."""
    config = tiny_model.model().config
    config.num_labels = labels
    config.initializer_range = 0.3
    torch.manual_seed(1)
    model = kind.from_config(config).eval()
    model.save_pretrained(path)
    tiny_model.tokenizer().save_pretrained(path)
    return path, model


def scores(path: Path, *answers: str, whole: bool = False, messages: Any = QUESTION) -> list[float | None]:
    where = {"path": str(path), "device": "cpu", "dtype": "float32"}
    items = [{"messages": messages, "answer": answer} for answer in answers]
    return local_model.score({"model": where, "items": items, "whole": whole})


@pytest.mark.parametrize("kind", [AutoModelForTokenClassification, AutoModelForSequenceClassification])
def test_the_score_is_read_where_the_answer_ends(kind: Any, tmp_path: Path) -> None:
    path, model = folder_of(kind, tmp_path)
    tokenizer: Any = tiny_model.tokenizer()
    asked = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    want: list[float] = []
    for answer in ("3", "12+3=15"):
        tokens = [*asked, *tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
        with torch.no_grad():
            hidden = model.base_model(torch.tensor([tokens])).last_hidden_state[0, -1]
            want.append(model.score(hidden).item())
    assert scores(path, "3", "12+3=15") == pytest.approx(want, abs=1e-5), "padding changes nothing"
    assert scores(path, "12+3=15") == pytest.approx(want[1:], abs=1e-5)


def test_a_chat_template_can_write_the_whole(tmp_path: Path) -> None:
    path, model = folder_of(AutoModelForSequenceClassification, tmp_path)
    tokenizer: Any = tiny_model.tokenizer()
    turns = [*QUESTION, {"role": "assistant", "content": "3"}]
    tokens = tokenizer.apply_chat_template(turns, return_dict=False)
    with torch.no_grad():
        want = model.score(model.base_model(torch.tensor([tokens])).last_hidden_state[0, -1]).item()
    assert scores(path, "3", whole=True) == pytest.approx([want], abs=1e-5)


def test_it_reads_what_a_learner_has_trained(tmp_path: Path) -> None:
    path, _ = folder_of(AutoModelForTokenClassification, tmp_path)
    model = load.load_model(path, device="cpu", head=Head.VALUES)
    forward.use_packed(model, where="model")
    pair = pairs.read({"messages": QUESTION, "chosen": "3", "rejected": "12"}, pairs.Config(), where="", name="p")
    samples = [scored(s) for s in pairs.render(pair, pairs.Config(), tiny_model.tokenizer())]
    (batch,) = pack(samples, token_budget=99)
    spec = forward.ForwardSpec(transforms=Transforms(), chunk_mib=0, entropy_gradient=False)
    with torch.no_grad():
        found = by_sample([batch], [forward.scores(forward.forward(model, batch, spec))])
    trained = [found[s.id][0] for s in samples]
    assert trained == pytest.approx(scores(path, "3", "12"), abs=1e-5)


def test_what_does_not_fit_has_no_score_and_marks_of_turns_are_broken_up(tmp_path: Path) -> None:
    path, _ = folder_of(AutoModelForTokenClassification, tmp_path)
    long, fine = scores(path, "1" * 5000, "3")
    assert long is None and fine is not None
    eos = str(tiny_model.tokenizer().eos_token)
    assert scores(path, f"3{eos}") != scores(path, "3")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    tiny_model.model().save_pretrained(tmp_path / "policy")
    tiny_model.tokenizer().save_pretrained(tmp_path / "policy")
    with pytest.raises(ValueError, match="is no reward model"):
        scores(tmp_path / "policy", "3")
    with pytest.raises(ValueError, match="one score"):
        scores(folder_of(AutoModelForTokenClassification, tmp_path / "two", labels=2)[0], "3")


class Served:
    """Stands for the worker: scores an answer by its length, or fails."""

    def __init__(self, fails: dict[str, Any] | None = None) -> None:
        self.asked: list[str] = []
        self._fails = fails or {}

    def ask(self, items: Sequence[dict[str, Any]], **_: Any) -> list[Any]:
        self.asked += [item["answer"] for item in items]
        return [self._fails.get(item["answer"], float(len(item["answer"]))) for item in items]


def answered(*texts: str) -> Group:
    made = group(*[None] * len(texts), verdicts=[Verdict.SKIPPED] * len(texts))
    return replace(
        made, rewards=(), trajectories=tuple(replace(t, text=x) for t, x in zip(made.trajectories, texts, strict=True))
    )


def graded(cfg: Config, served: Served, *texts: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(reward_model, "served", lambda *_: served)
    no_tools: Any = None
    return reward_model.score(answered(*texts), cfg, no_tools)


def test_a_score_is_scaled_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served()
    cfg = Config(model="m", mean=2.0, std=2.0, clip=1.5)
    outs = graded(cfg, served, "aaa", "a", "aaa", "a" * 9, monkeypatch=monkeypatch)
    assert [out.value for out in outs] == [0.5, -0.5, 0.5, 1.5]
    assert [out.breakdown["score"] for out in outs] == [3.0, 1.0, 3.0, 9.0]
    assert {out.verdict for out in outs} == {Verdict.SKIPPED} and served.asked == ["aaa", "a", "a" * 9]


def test_scores_may_be_let_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = Config(model="m", decides=True, correct_from=2.0)
    outs = graded(cfg, Served(), "aa", "a", monkeypatch=monkeypatch)
    assert [out.verdict for out in outs] == [Verdict.CORRECT, Verdict.WRONG]
    assert not cfg.advisory and Config(model="m").advisory


def test_what_has_no_score_is_not_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    fails = {"a": TimeoutError(), "b": WorkerError("memory", "full"), "c": None}
    outs = graded(Config(model="m"), Served(fails), "a", "b", "c", "d", monkeypatch=monkeypatch)
    assert [out.value for out in outs] == [None, None, None, 1.0]
    reasons = [
        "timeout/reward_model",
        "crash/reward_model_memory",
        "crash/reward_model_too_long",
        "reward_model/scored",
    ]
    assert [out.reason for out in outs] == reasons


def test_an_answer_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served()
    (out,) = graded(Config(model="m", max_chars=3, lowest=-1.0), served, "aaaa", monkeypatch=monkeypatch)
    assert (out.value, out.verdict, out.reason) == (-1.0, Verdict.UNPARSABLE, "limit/chars") and not served.asked


def test_which_model_it_asks(tmp_path: Path) -> None:
    cfg = Config(stage="rm")
    assert cfg.awaits is not None and (cfg.awaits.stage, cfg.awaits.loss) == ("rm", "reward_model") and cfg.costly
    assert cfg.asking(tmp_path).model == str(tmp_path) and not cfg.asking(tmp_path).stage
    with pytest.raises(ConfigError, match="has not trained its model yet"):
        reward_model.scores(answered("a").prompt, ["a"], cfg)
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        reward_model.scores(answered("a").prompt, ["a"], Config(model=str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({}, "model"),
        ({"model": "m", "stage": "rm"}, "stage"),
        ({"model": "m", "std": 0.0}, "std"),
        ({"model": "m", "clip": -1.0}, "clip"),
        ({"model": "m", "mean": float("nan")}, "mean"),
        ({"model": "m", "max_chars": 0}, "max_chars"),
        ({"model": "m", "timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**change)
    assert caught.value.where == where
