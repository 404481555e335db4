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
from collections.abc import Sequence
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


def train(
    texts: Sequence[Labelled],
    model: Path,
    out: Path,
    *,
    epochs: int = 3,
    lr: float = 2e-5,
    batch: int = 16,
    seed: int = 0,
) -> Measured:
    """Train and save.

    Args:
        texts: of both kinds.
        model: folder to start from.
        out: folder to write.
        epochs: passes over the texts.
        lr: learning rate.
        batch: texts per step.
        seed: of the split, the order and the new head.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    rng = random.Random(seed)
    shuffled = rng.sample(list(texts), len(texts))
    held_out, rest = shuffled[: max(1, len(texts) // _HELD_OUT)], shuffled[max(1, len(texts) // _HELD_OUT) :]
    tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True, truncation_side="left")
    ids = {name: number for number, name in LABELS.items()}
    net: Any = AutoModelForSequenceClassification.from_pretrained(
        model, local_files_only=True, num_labels=len(LABELS), id2label=LABELS, label2id=ids, dtype=torch.float32
    )
    net.config.pad_token_id = tokenizer.pad_token_id
    room = int(vars(net.config.get_text_config()).get("max_position_embeddings") or tokenizer.model_max_length)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)

    def logits(chosen: Sequence[Labelled]) -> torch.Tensor:
        encoded = tokenizer(
            [one.text for one in chosen], truncation=True, max_length=room, padding=True, return_tensors="pt"
        )
        return net(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits

    net.train()
    for _ in range(epochs):
        order = rng.sample(rest, len(rest))
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            labels = torch.tensor([int(one.refused) for one in chosen])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits(chosen), labels).backward()
            optimizer.step()
    net.eval()
    with torch.inference_mode():
        right = [
            bool(found) == one.refused
            for start in range(0, len(held_out), batch)
            for found, one in zip(
                logits(held_out[start : start + batch]).argmax(-1).tolist(), held_out[start:], strict=False
            )
        ]
    net.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return Measured(texts=len(right), accuracy=sum(right) / len(right))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rewards.refusal.train", description="Train a refusal classifier.")
    for name in ("texts", "model", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    texts = read(args.texts)
    found = train(texts, args.model, args.out, epochs=args.epochs, lr=args.lr, batch=args.batch, seed=args.seed)
    print(f"{found.accuracy:.1%} of {found.texts} held-out texts are told rightly")


if __name__ == "__main__":
    main()
