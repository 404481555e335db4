"""Runs a reward model in a worker process: loads torch, and only when it is called.

Called through `rewards.served` by `rewards.reward_model`. A model is loaded once in the life of a worker. Answers of a
batch are padded on the right, which a causal model does not see, and read where their last token stands. A classifier
of tokens, as this project trains it, and one of sequences, as others do, have the same body and a head with one label;
where a sequence ends is told here, not by its padding token. No code from a model's folder is run.
"""

# transformers is only partly typed, which strict checking turns into errors on every line.
# pyright: basic

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from rewards.served import defused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    body: Any
    head: Any
    tokenizer: Any
    special: tuple[str, ...]
    """Texts of the tokens that structure what it reads, longest first."""
    context: int


def load(model: Mapping[str, str]) -> None:
    """Load a model unless it is.

    Raises:
        ValueError: it has no head with one label, or its tokenizer cannot render a conversation.
    """
    _load(model["path"], model["device"], model["dtype"])


def score(request: Mapping[str, Any]) -> list[float | None]:
    """The score of each answer; None where it does not fit the context."""
    import torch

    where: Mapping[str, str] = request["model"]
    loaded = _load(where["path"], where["device"], where["dtype"])
    found = [_tokens(item["messages"], item["answer"], request["whole"], loaded) for item in request["items"]]
    fitting = [n for n, tokens in enumerate(found) if 0 < len(tokens) <= loaded.context]
    out: list[float | None] = [None] * len(found)
    if not fitting:
        return out
    width = max(len(found[n]) for n in fitting)
    rows = torch.tensor([found[n] + [0] * (width - len(found[n])) for n in fitting], device=where["device"])
    mask = torch.tensor([[1] * len(found[n]) + [0] * (width - len(found[n])) for n in fitting], device=where["device"])
    last = torch.tensor([len(found[n]) - 1 for n in fitting], device=where["device"])
    with torch.inference_mode():
        hidden = loaded.body(input_ids=rows, attention_mask=mask, use_cache=False).last_hidden_state
        scores = loaded.head(hidden[torch.arange(len(fitting), device=hidden.device), last])[:, 0].double()
    for n, value in zip(fitting, scores.tolist(), strict=True):
        out[n] = value
    return out


@cache
def _load(path: str, device: str, dtype: str) -> _Loaded:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from torch import nn
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
    )

    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise ValueError("its tokenizer has no chat template")
    common: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    kinds = AutoConfig.from_pretrained(path, **common).architectures or [""]
    auto = AutoModelForSequenceClassification if "ForSequence" in kinds[0] else AutoModelForTokenClassification
    model, info = auto.from_pretrained(path, output_loading_info=True, dtype=dtype, **common)
    if info["missing_keys"]:
        raise ValueError(f"it is no reward model: {sorted(info['missing_keys'])[0]} is missing")
    heads = [layer for layer in model.children() if isinstance(layer, nn.Linear)]
    if len(heads) != 1 or heads[0].out_features != 1:
        raise ValueError("it does not end with one linear layer that gives one score")
    model = model.to(device).eval()
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special = {text for text in special | set(tokenizer.all_special_tokens) if len(text) > 1}
    return _Loaded(
        body=model.base_model,
        head=heads[0],
        tokenizer=tokenizer,
        special=tuple(sorted(special, key=len, reverse=True)),
        context=vars(model.config.get_text_config()).get("max_position_embeddings") or 2**31,
    )


def _tokens(messages: list[dict[str, str]], answer: str, whole: bool, loaded: _Loaded) -> list[int]:
    """What the model reads, as `rlhf.data.examples.pairs` makes it, or as the chat template has it."""
    safe = [{**message, "content": defused(message["content"], loaded.special)} for message in messages]
    said, tokenizer = defused(answer, loaded.special), loaded.tokenizer
    if whole:
        turns = [*safe, {"role": "assistant", "content": said}]
        return list(tokenizer.apply_chat_template(turns, return_dict=False))
    asked = tokenizer.apply_chat_template(safe, add_generation_prompt=True, return_dict=False)
    return [*asked, *tokenizer.encode(said, add_special_tokens=False), tokenizer.eos_token_id]
