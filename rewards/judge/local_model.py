"""Runs a judge in a worker process: the one file here that loads torch, and only when it is called.

Called through `WorkerPool.call("rewards.judge.local_model:answer", …)` by `rewards.judge.local`. A model is loaded once
in the life of a worker. Decoding is greedy. Prompts of a batch are padded on the left, which beyond rounding changes
nothing. No code from a model's folder is run.
"""

# transformers is only partly typed, which strict checking turns into errors on every line.
# pyright: basic

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from rewards.judge.sheet import Conversation
from rewards.served import defused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    model: Any
    tokenizer: Any
    special: tuple[str, ...]
    """Texts of the tokens that structure a conversation, longest first."""
    context: int
    """Tokens that question and reply may have together."""


def load(model: Mapping[str, str]) -> None:
    """Load a model unless it is.

    Raises:
        ValueError: its tokenizer has no chat template.
    """
    _load(model["path"], model["device"], model["dtype"])


def answer(request: Mapping[str, Any]) -> list[dict[str, object]]:
    """One reply per conversation: its text, and whether it was cut; no text where it does not fit the context."""
    import torch
    from transformers import GenerationConfig

    where: Mapping[str, str] = request["model"]
    loaded = _load(where["path"], where["device"], where["dtype"])
    limit = int(request["max_tokens"])
    prompts = [_tokens(conversation, loaded) for conversation in request["items"]]
    fitting = [n for n, tokens in enumerate(prompts) if len(tokens) + limit <= loaded.context]
    out: list[dict[str, object]] = [{"text": None, "cut": False} for _ in prompts]
    if not fitting:
        return out
    ends = _ends(loaded)
    pad = ends[0]
    width = max(len(prompts[n]) for n in fitting)
    ids = torch.tensor([[pad] * (width - len(prompts[n])) + prompts[n] for n in fitting], device=where["device"])
    mask = torch.tensor(
        [[0] * (width - len(prompts[n])) + [1] * len(prompts[n]) for n in fitting], device=where["device"]
    )
    settings = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=pad)
    with torch.inference_mode():
        found = loaded.model.generate(ids, attention_mask=mask, generation_config=settings)[:, width:].tolist()
    for n, tokens in zip(fitting, found, strict=True):
        end = next((at for at, token in enumerate(tokens) if token in ends), None)
        text = loaded.tokenizer.decode(tokens[:end], skip_special_tokens=True)
        out[n] = {"text": text, "cut": end is None}
    return out


@cache
def _load(path: str, device: str, dtype: str) -> _Loaded:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    if not tokenizer.chat_template:
        raise ValueError("its tokenizer has no chat template")
    model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=dtype)
    model.to(device).eval()
    texts = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special = sorted(
        (text for text in texts | set(tokenizer.all_special_tokens) if len(text) > 1), key=len, reverse=True
    )
    context = vars(model.config.get_text_config()).get("max_position_embeddings") or 2**31
    loaded = _Loaded(model=model, tokenizer=tokenizer, special=tuple(special), context=context)
    if not _ends(loaded):
        raise ValueError("neither model nor tokenizer say which token ends a reply")
    return loaded


def _ends(loaded: _Loaded) -> list[int]:
    own = loaded.model.generation_config.eos_token_id
    ends = [own] if isinstance(own, int) else list(own or [])
    return list(
        dict.fromkeys([*ends, *([] if loaded.tokenizer.eos_token_id is None else [loaded.tokenizer.eos_token_id])])
    )


def _tokens(conversation: Conversation, loaded: _Loaded) -> list[int]:
    messages = [message | {"content": defused(message["content"], loaded.special)} for message in conversation]
    text = loaded.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
