"""Runs a refusal classifier in a worker process: loads torch, and only when it is called.

Called through `rewards.served` by `rewards.refusal.classifier`. A model is loaded once in the life of a worker. Texts
of a batch are padded, which beyond rounding changes nothing. No code from a model's folder is run.
"""

# transformers is only partly typed, which strict checking turns into errors on every line.
# pyright: basic

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any


def load(model: Mapping[str, str]) -> None:
    """Load a model unless it is."""
    _load(model["path"], model["device"], model["dtype"])


def classify(request: Mapping[str, Any]) -> list[float]:
    """The probability of the label for each text.

    Raises:
        LookupError: the model has no such label.
    """
    import torch

    where: Mapping[str, str] = request["model"]
    tokenizer, model = _load(where["path"], where["device"], where["dtype"])
    labels = {str(name): int(number) for number, name in model.config.id2label.items()}
    if request["label"] not in labels:
        raise LookupError(f"the model has no label '{request['label']}', but {', '.join(labels)}")
    room = vars(model.config.get_text_config()).get("max_position_embeddings") or tokenizer.model_max_length
    batch = tokenizer(list(request["items"]), truncation=True, max_length=int(room), padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(
            input_ids=batch["input_ids"].to(where["device"]), attention_mask=batch["attention_mask"].to(where["device"])
        ).logits.float()
    shares = logits.sigmoid() if logits.shape[-1] == 1 else logits.softmax(-1)
    return shares[:, labels[request["label"]]].tolist()


@cache
def _load(path: str, device: str, dtype: str) -> tuple[Any, Any]:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True, truncation_side="left")
    if tokenizer.pad_token_id is None:
        raise ValueError("its tokenizer has no padding token")
    model: Any = AutoModelForSequenceClassification.from_pretrained(path, local_files_only=True, dtype=dtype)
    return tokenizer, model.to(device).eval()
