"""A refusal classifier: trained from labelled texts, served by a worker, deciding for the reward."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rewards.refusal import Classifier, Config, classifier, score, train
from rewards.refusal.classifier import probabilities, served
from rewards.served import Serving
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.modules import Tools
from rlhf.core.types import Group, Message, Prompt, StopReason, Trajectory, Verdict
from rlhf.models import tokenizers


class NoTools:
    """A classifier has a worker of its own."""

    def call(self, target: str, argument: object, *, timeout_s: float) -> object:
        raise AssertionError("not expected")


NO_TOOLS: Tools = NoTools()
SERVING = Serving(batch_size=4, load_timeout_s=120.0)


def labelled(count: int) -> list[train.Labelled]:
    """Answers end in a figure, refusals in a mark; the words before are the same."""
    rng = random.Random(0)
    words = [" ".join(rng.choices(("so", "then", "it", "is"), k=rng.randint(1, 4))) for _ in range(count)]
    return [
        train.Labelled(text=f"{said} {'??' if n % 2 else rng.randint(10, 99)}", refused=bool(n % 2))
        for n, said in enumerate(words)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained classifier, made of a causal model by the command line's own functions."""
    place = tmp_path_factory.mktemp("classifier")
    tokenizer = tokenizers.train_char([""])
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=64,
        max_position_embeddings=48, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    rows = [{"text": one.text, "refused": one.refused} for one in labelled(200)]
    (place / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = train.read(place / "texts.jsonl")
    found = train.train(texts, place / "base", place / "trained", how=train.Settings(epochs=4, lr=3e-3))
    assert found.texts == 20 and found.accuracy >= 0.95
    return place / "trained"


def answers(*texts: str) -> Group:
    prompt = Prompt(id="p", messages=(Message(role="user", content="1+1="),), gold="2", task="sums")
    trajectories = tuple(
        Trajectory(
            id=f"0-0-p-{n}", prompt_id="p", index=n, prompt_tokens=(1,), tokens=(2,), logprobs=(-0.5,), text=text,
            stop=StopReason.EOS, policy_version=0, seed=n,
        )
        for n, text in enumerate(texts)
    )  # fmt: skip
    return Group(prompt=prompt, trajectories=trajectories)


def test_it_tells_refusals_from_answers_and_the_reward_goes_by_it(folder: Path) -> None:
    cfg = Classifier(model=str(folder), serving=SERVING)
    texts = [one.text for one in labelled(40)]
    found = probabilities(texts, cfg)
    assert all(isinstance(share, float) and 0 <= share <= 1 for share in found)
    assert [share > 0.5 for share in found if isinstance(share, float)] == [n % 2 == 1 for n in range(40)]
    alone = [probabilities([text], cfg)[0] for text in texts[:5]]
    assert found[:5] == pytest.approx(alone, abs=1e-4), "a text does not depend on its batch"
    outs = score(answers("so it is #### 2", "so it is #### 31", "then it is ??"), Config(classifier=cfg), NO_TOOLS)
    assert [(out.value, out.verdict) for out in outs] == [
        (1.0, Verdict.CORRECT),
        (-1.0, Verdict.WRONG),
        (-1.0, Verdict.REFUSED),
    ]
    assert probabilities(["so " * 500 + "it is ??"], cfg)[0] == pytest.approx(1.0, abs=0.3), "the end of it is read"


def test_what_takes_too_long_costs_itself(folder: Path) -> None:
    model = served(folder, SERVING)
    far = time.monotonic() + 300
    long = "so " * 300_000  # a second's work for the tokenizer
    [late] = model.ask([long], settings={"label": "refused"}, timeout_s=0.01, deadline=far)
    assert isinstance(late, TimeoutError)
    [again] = model.ask(["it is ??"], settings={"label": "refused"}, timeout_s=60.0, deadline=far)
    assert isinstance(again, float), "killed in the middle, it is loaded again for the next"


def test_a_label_that_the_model_lacks_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no label 'idk', but answered, refused") as caught:
        probabilities(["x"], Classifier(model=str(folder), label="idk", serving=SERVING))
    assert caught.value.where == "label"


def test_a_folder_that_holds_no_such_model_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    (broken / "model.safetensors").unlink()
    cfg = Classifier(model=str(broken), serving=SERVING)
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        probabilities(["x"], cfg)
    assert caught.value.where == "model"
    classifier.served(broken, SERVING).close()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "a"}', "no object with `text` and `refused`"),
        ('{"text": 3, "refused": true}', "`text` is no text"),
        ('{"text": "a", "refused": true}', "texts of one kind only"),
        ("[1]", "no object"),
    ],
)
def test_texts_that_teach_nothing_are_refused(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=says):
        train.read(tmp_path / "x.jsonl")
