"""Runs a process reward model in a worker process: the one file here that loads torch, and only when it is called.

Called through `WorkerPool.call("rewards.process.local_model:score", …)` by `rewards.process.local`. A model is loaded
once in the life of a worker. Answers of a batch are padded on the right, which a causal model does not see. No code
from a model's folder is run: the head of Qwen's process reward models, two layers where transformers has one, is built
here from its weights.
"""

# transformers is only partly typed, which strict checking turns into errors on every line.
# pyright: basic

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rewards.process.form import Form
from rewards.served import defused


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    model: Any
    """Logits [B, L, labels or vocabulary] of token ids and a mask."""
    tokenizer: Any
    form: Form
    special: tuple[str, ...]
    """Texts of the tokens that structure what it reads, longest first."""
    context: int
    choices: tuple[int, ...]
    """Which logits count: of good and bad, or of the only label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """An answer in tokens, and where the score of each step stands."""

    tokens: list[int]
    places: list[int]


def load(model: Mapping[str, Any]) -> None:
    """Load a model unless it is.

    Raises:
        ValueError: it does not fit the form.
    """
    _load(model["path"], model["device"], model["dtype"], json.dumps(model["form"]))


def score(request: Mapping[str, Any]) -> list[list[float] | None]:
    """Scores in [0, 1] of the steps of each answer; None where it does not fit the context."""
    import torch

    where = request["model"]
    loaded = _load(where["path"], where["device"], where["dtype"], json.dumps(where["form"]))
    found = [_read(answer["messages"], answer["steps"], loaded) for answer in request["items"]]
    fitting = [n for n, read in enumerate(found) if len(read.tokens) <= loaded.context]
    out: list[list[float] | None] = [None] * len(found)
    if not fitting:
        return out
    width = max(len(found[n].tokens) for n in fitting)
    rows = [found[n].tokens + [0] * (width - len(found[n].tokens)) for n in fitting]
    mask = [[1] * len(found[n].tokens) + [0] * (width - len(found[n].tokens)) for n in fitting]
    kept = sorted({place for n in fitting for place in found[n].places})
    at = {place: column for column, place in enumerate(kept)}
    with torch.inference_mode():
        logits = loaded.model(
            torch.tensor(rows, device=where["device"]),
            torch.tensor(mask, device=where["device"]),
            torch.tensor(kept, device=where["device"]),
        )[:, :, list(loaded.choices)].double()
        # One label alone is a log-odds; of two the softmax counts.
        good = logits[:, :, 0].sigmoid() if len(loaded.choices) == 1 else logits.softmax(dim=-1)[:, :, 0]
    for row, n in zip(good.tolist(), fitting, strict=True):
        out[n] = [row[at[place]] for place in found[n].places]
    return out


@cache
def _load(path: str, device: str, dtype: str, form_text: str) -> _Loaded:
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import AutoTokenizer

    form = Form(**json.loads(form_text))
    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if (form.chat or form.kind == "turns") and not tokenizer.chat_template:
        raise ValueError("its tokenizer has no chat template; for plain text set form.chat: false")
    if form.kind == "classifier":
        model, config, labels = _classifier(path, dtype)
        choices = (0,) if labels == 1 else (form.good_label, 1 - form.good_label)
    else:
        model, config = _language_model(path, dtype)
        choices = (_one_token(form.good, tokenizer), _one_token(form.bad, tokenizer))
    texts = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special = {text for text in texts | set(tokenizer.all_special_tokens) if len(text) > 1}
    if len(form.step_end.strip()) > 1:
        special.add(form.step_end.strip())
    return _Loaded(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        form=form,
        special=tuple(sorted(special, key=len, reverse=True)),
        context=vars(config.get_text_config()).get("max_position_embeddings") or 2**31,
        choices=choices,
    )


def _language_model(path: str, dtype: str) -> tuple[Any, Any]:
    from torch import nn
    from transformers import AutoModelForCausalLM

    inner: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=dtype, trust_remote_code=False)
    selects = "logits_to_keep" in inspect.signature(inner.forward).parameters

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, ids: Any, mask: Any, kept: Any) -> Any:
            if selects:
                return self.inner(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
            return self.inner(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, kept]

    return Logits(), inner.config


def _classifier(path: str, dtype: str) -> tuple[Any, Any, int]:
    """The model, its config and its number of labels."""
    from torch import nn
    from transformers import AutoModel, AutoModelForTokenClassification

    layered = {name: tensor for name, tensor in _tensors(path, "score.").items() if name.split(".")[1].isdigit()}
    common: dict[str, Any] = {"local_files_only": True, "dtype": dtype, "trust_remote_code": False}
    if layered:
        body: Any = AutoModel.from_pretrained(path, **common)
        head = _two_layers(layered)
        labels = int(head[2].out_features)
        head = head.to(body.dtype)
    else:
        loaded: Any = AutoModelForTokenClassification.from_pretrained(path, output_loading_info=True, **common)
        whole, info = loaded
        if info["missing_keys"]:
            raise ValueError(f"it has no head for token classification: {sorted(info['missing_keys'])[0]} is missing")
        body, head, labels = whole, None, int(whole.config.num_labels)
    if labels not in (1, 2):
        raise ValueError(f"it has {labels} labels; a process reward model has two, or one")

    class Labels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, head

        def forward(self, ids: Any, mask: Any, kept: Any) -> Any:
            out = self.body(input_ids=ids, attention_mask=mask, use_cache=False)
            return out.logits[:, kept] if self.head is None else self.head(out.last_hidden_state[:, kept])

    return Labels(), body.config, labels


def _two_layers(tensors: Mapping[str, Any]) -> Any:
    """`Linear, ReLU, Linear`, as Qwen2ForProcessRewardModel has it."""
    from torch import nn

    if set(tensors) != {f"score.{n}.{part}" for n in (0, 2) for part in ("weight", "bias")}:
        raise ValueError(f"its head has the unknown weights {sorted(tensors)}")
    head = nn.Sequential(
        nn.Linear(*reversed(tensors["score.0.weight"].shape)),
        nn.ReLU(),
        nn.Linear(*reversed(tensors["score.2.weight"].shape)),
    )
    head.load_state_dict({name.removeprefix("score."): tensor for name, tensor in tensors.items()})
    return head


def _tensors(path: str, prefix: str) -> dict[str, Any]:
    """The weights whose names begin so, of all safetensors files in a folder."""
    from safetensors import safe_open

    out: dict[str, Any] = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            out |= {name: opened.get_tensor(name) for name in opened.keys() if name.startswith(prefix)}  # noqa: SIM118
    return out


def _one_token(text: str, tokenizer: Any) -> int:
    found = tokenizer.encode(text, add_special_tokens=False)
    if len(found) != 1:
        raise ValueError(f"its tokenizer makes {len(found)} tokens of {text!r}, which has to be one")
    return int(found[0])


def _read(messages: Sequence[Mapping[str, str]], steps: Sequence[str], loaded: _Loaded) -> _Read:
    form = loaded.form
    question = [{**message, "content": defused(message["content"], loaded.special)} for message in messages]
    if form.system:
        question = [{"role": "system", "content": form.system}, question[-1]]
    safe = [defused(step, loaded.special) for step in steps]
    if form.kind == "turns":
        return _turns(question, safe, loaded)
    start = question[-1]["content"] + form.before
    if form.chat:
        start = loaded.tokenizer.apply_chat_template(question, add_generation_prompt=True, tokenize=False)
    pieces = [start]
    for number, step in enumerate(safe):
        pieces += [(form.between if number else "") + step, form.step_end]
    return _at_once(pieces, loaded) if form.together else _apart(pieces, loaded)


def _first(loaded: _Loaded) -> list[int]:
    """Plain text begins with the token for it, where there is one; a chat template writes it by itself."""
    bos = loaded.tokenizer.bos_token_id
    return [] if loaded.form.chat or bos is None else [bos]


def _apart(pieces: Sequence[str], loaded: _Loaded) -> _Read:
    tokens, places = _first(loaded), list[int]()
    for number, piece in enumerate(pieces):
        tokens += loaded.tokenizer(piece, add_special_tokens=False)["input_ids"]
        if number and number % 2 == 0:
            places.append(len(tokens) - 1)
    return _Read(tokens=tokens, places=places)


def _at_once(pieces: Sequence[str], loaded: _Loaded) -> _Read:
    found = loaded.tokenizer("".join(pieces), add_special_tokens=False, return_offsets_mapping=True)
    first, ends, place = _first(loaded), list[int](), 0
    for number, piece in enumerate(pieces):
        place += len(piece)
        if number and number % 2 == 0:
            ends.append(place)
    last = {end: n for n, (_, end) in enumerate(found["offset_mapping"])}
    if any(end not in last for end in ends):
        raise ValueError("a token goes on behind the end of a step; set form.together: false")
    return _Read(tokens=[*first, *found["input_ids"]], places=[last[end] + len(first) for end in ends])


def _turns(question: list[dict[str, str]], steps: Sequence[str], loaded: _Loaded) -> _Read:
    """Each step is a user's turn, the first one behind the question; the score is that of the reply."""
    form, tokenizer = loaded.form, loaded.tokenizer
    conversation, places, tokens = question[:-1], list[int](), list[int]()
    for number, step in enumerate(steps):
        content = step if number else question[-1]["content"] + form.before + step
        conversation = [*conversation, {"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        asked = tokenizer(text, add_special_tokens=False)["input_ids"]
        if asked[: places[-1] + 1 if places else 0] != tokens[: places[-1] + 1 if places else 0]:
            raise ValueError("its chat template changes earlier turns, so that steps cannot be scored together")
        tokens = asked
        places.append(len(asked) - 1)
        conversation.append({"role": "assistant", "content": form.good})
    return _Read(tokens=tokens, places=places)
