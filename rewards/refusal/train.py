"""Trains a refusal classifier from labelled texts, for `rewards.refusal.classifier`.

    python -m rewards.refusal.train texts.jsonl MODEL OUT [--epochs 3] [--lr 2e-5] [--batch 16] [--seed 0]

Each line of the file holds a `text` and whether it `refused`. `MODEL` is the folder of any model that transformers can
put a classification head on, an encoder or a causal one; `OUT` gets the classifier with its tokenizer. One text in ten,
chosen by the seed, is held out to measure it on. Fine-tuning of all weights as in BERT (Devlin et al. 2019, arXiv
1810.04805, section 4.1): cross-entropy, AdamW, three epochs at 2e-5.

To get such texts, run a `generate` stage with `select: all` and a `refusal` reward that goes by phrases, and mend the
labels by hand: a classifier that learnt what phrases say knows no more than they do.
"""

# transformers is only partly typed, which strict checking turns into errors on every line.
# pyright: basic

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.core.errors import DataError

LABELS = {0: "answered", 1: "refused"}
_HELD_OUT = 10
"""One in so many."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text and whether it declines to answer."""

    text: str
    refused: bool


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How the classifier does on texts that it was not trained on."""

    texts: int
    accuracy: float


def read(path: Path) -> list[Labelled]:
    """The texts of a file.

    Raises:
        DataError: a line lacks a text or a label, or all have the same label.
    """
    found: list[Labelled] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            text, refused = row["text"], row["refused"]
        except (ValueError, KeyError, TypeError) as error:
            problem = f"is no object with `text` and `refused`: {error!r}"
            raise DataError(f"{path}, line {number}", problem, fix="mend or remove it") from error
        if not isinstance(text, str) or not isinstance(refused, bool):
            raise DataError(f"{path}, line {number}", "`text` is no text or `refused` not true or false", fix="mend it")
        found.append(Labelled(text=text, refused=refused))
    if len({one.refused for one in found}) < 2:
        raise DataError(str(path), "has texts of one kind only", fix="add refusals and answers")
    return found


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How it is trained."""

    epochs: int = 3
    """Passes over the texts."""
    lr: float = 2e-5
    """Learning rate."""
    batch: int = 16
    """Texts per step."""
    seed: int = 0
    """Of the split, the order and the new head."""


def train(texts: Sequence[Labelled], model: Path, out: Path, *, how: Settings) -> Measured:
    """Train and save.

    Args:
        texts: of both kinds.
        model: folder to start from.
        out: folder to write.
        how: steps and seed.
    """
    import torch

    torch.manual_seed(how.seed)
    rng = random.Random(how.seed)
    shuffled = rng.sample(list(texts), len(texts))
    size = max(1, len(texts) // _HELD_OUT)
    net = _opened(model)
    optimizer = torch.optim.AdamW(net.model.parameters(), lr=how.lr)
    net.model.train()
    for _ in range(how.epochs):
        for chosen in _batches(rng.sample(shuffled[size:], len(texts) - size), how.batch):
            labels = torch.tensor([int(one.refused) for one in chosen])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net.logits(chosen), labels).backward()
            optimizer.step()
    net.model.eval()
    with torch.inference_mode():
        said = [
            bool(x) for chosen in _batches(shuffled[:size], how.batch) for x in net.logits(chosen).argmax(-1).tolist()
        ]
    net.model.save_pretrained(out)
    net.tokenizer.save_pretrained(out)
    right = sum(found == one.refused for found, one in zip(said, shuffled[:size], strict=True))
    return Measured(texts=size, accuracy=right / size)


@dataclass(frozen=True, kw_only=True)
class _Net:
    model: Any
    tokenizer: Any
    room: int
    """Tokens that it reads."""

    def logits(self, chosen: Sequence[Labelled]) -> Any:
        """[texts, labels]"""
        texts = [one.text for one in chosen]
        found = self.tokenizer(texts, truncation=True, max_length=self.room, padding=True, return_tensors="pt")
        return self.model(input_ids=found["input_ids"], attention_mask=found["attention_mask"]).logits


def _opened(model: Path) -> _Net:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True, truncation_side="left")
    ids = {name: number for number, name in LABELS.items()}
    net: Any = AutoModelForSequenceClassification.from_pretrained(
        model, local_files_only=True, num_labels=len(LABELS), id2label=LABELS, label2id=ids, dtype=torch.float32
    )
    net.config.pad_token_id = tokenizer.pad_token_id
    room = vars(net.config.get_text_config()).get("max_position_embeddings") or tokenizer.model_max_length
    return _Net(model=net, tokenizer=tokenizer, room=int(room))


def _batches(texts: Sequence[Labelled], size: int) -> Iterator[Sequence[Labelled]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rewards.refusal.train", description="Train a refusal classifier.")
    for name in ("texts", "model", "out"):
        parser.add_argument(name, type=Path)
    for name, value in vars(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    args = parser.parse_args()
    how = Settings(epochs=args.epochs, lr=args.lr, batch=args.batch, seed=args.seed)
    found = train(read(args.texts), args.model, args.out, how=how)
    print(f"{found.accuracy:.1%} of {found.texts} held-out texts are told rightly")


if __name__ == "__main__":
    main()
