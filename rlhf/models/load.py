"""Models and tokenizers from a folder, from the Hugging Face hub, or made from nothing.

`prepare` is called once per run, by the loops; it returns a folder in Hugging Face format, from which every role loads
with `load_model` and `load_tokenizer`. Invariants: weights come from safetensors files only, since a pickle can run
code; code that a model ships runs only with `trust_remote_code`; a checkpoint that lacks weights is an error, never
filled with random ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.hub import is_hub_id
from rlhf.core.training import Head
from rlhf.models import rope, tiny, tokenizers
from rlhf.models.rope import RopeConfig

DTYPES: dict[str, str | torch.dtype] = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
TOKENIZERS = ("char", "bpe")

_LABELS = {Head.LOGITS: 0, Head.VALUES: 1, Head.STEPS: 2}
"""Of the token classifier that a head stands for; 0 is a causal language model."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which model to start from: exactly one of `path` and `init` is set."""

    path: str | None = None
    """A folder in Hugging Face format, or a hub id."""
    init: str | None = None
    """Make a model from nothing: nano (0.1M parameters), tiny (1M), small (10M) or medium (100M)."""
    tokenizer: str = "char"
    """Tokenizer of a model made by `init`: char (one token per character) or bpe (byte-level)."""
    bpe_vocab_size: int = 2048
    """Largest vocabulary of the bpe tokenizer, special tokens included."""
    max_positions: int = 1024
    """Longest sequence, prompt and answer together, of a model made by `init`."""
    dtype: str = "auto"
    """Type of the weights: auto (as stored), float32, bfloat16 or float64."""
    chat_template: str | None = None
    """Replaces the tokenizer's own: `plain` (messages without marks), a .jinja file, or the template text."""
    trust_remote_code: bool = False
    """Run Python code that the model ships. Read that code first."""
    rope: RopeConfig = field(default_factory=RopeConfig)

    @property
    def makes_folder(self) -> bool:
        """Whether a run has a model folder of its own, which it keeps when it is continued."""
        return self.init is not None or self.rope.on

    def __post_init__(self) -> None:
        if self.path is not None and self.init is not None:
            raise ConfigError("init", f"both path ('{self.path}') and init are set", fix="set one of them to null")
        if self.init is not None and self.init not in tiny.SIZES:
            raise ConfigError("init", f"there is no size '{self.init}'", fix=did_you_mean(self.init, tiny.SIZES))
        if self.tokenizer not in TOKENIZERS:
            fix = did_you_mean(self.tokenizer, TOKENIZERS)
            raise ConfigError("tokenizer", f"there is no tokenizer '{self.tokenizer}'", fix=fix)
        if self.dtype not in DTYPES:
            raise ConfigError("dtype", f"'{self.dtype}' is not offered", fix=did_you_mean(self.dtype, DTYPES))
        if self.bpe_vocab_size < tokenizers.MIN_BPE:
            problem = f"{self.bpe_vocab_size} does not hold the special tokens and all bytes"
            raise ConfigError("bpe_vocab_size", problem, fix=f"use {tokenizers.MIN_BPE} or more")
        if self.max_positions < 2:
            problem = f"{self.max_positions} leaves no room for a prompt and an answer"
            raise ConfigError("max_positions", problem, fix="use the longest prompt plus the longest answer")


def prepare(cfg: Config, folder: Path, *, texts: Iterable[str], seed: int) -> Path:
    """Make sure that the model lies in a local folder.

    Args:
        cfg: what to start from.
        folder: where a model made by `init`, or one with changed rotary positions, is written; else unused.
        texts: what a tokenizer made by `init` has to read: prompts and solutions.
        seed: decides the weights of a model made by `init`.

    Returns:
        The folder to load from: `path` itself, the hub's snapshot of it, or `folder`.

    Raises:
        ConfigError: neither `path` nor `init` is set. `DataError`: `path` cannot be used.
    """
    if cfg.path is not None:
        found = local_folder(cfg.path, trust_remote_code=cfg.trust_remote_code)
        changes = cfg.rope.on
        return rope.changed(cfg.rope, found, folder, trust_remote_code=cfg.trust_remote_code) if changes else found
    if cfg.init is None:
        raise ConfigError("model.path", "there is no model to start from", fix="set model.path or model.init")
    if cfg.tokenizer == "char":
        tokenizer = tokenizers.train_char(texts)
    else:
        tokenizer = tokenizers.train_bpe(texts, vocab_size=cfg.bpe_vocab_size)
    if cfg.chat_template is not None:
        tokenizer.chat_template = tokenizers.chat_template(cfg.chat_template)
    ids = tokenizer.get_vocab()
    vocabulary = tiny.Vocabulary(size=len(ids), eos=ids[tokenizers.EOS], pad=ids[tokenizers.PAD])
    model = tiny.build_model(cfg.init, vocabulary=vocabulary, max_positions=cfg.max_positions, seed=seed)
    if cfg.rope.on:
        rope.apply(cfg.rope, model.config)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def load_model(
    path: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    head: Head = Head.LOGITS,
    quantization: Any = None,
) -> PreTrainedModel:
    """A causal language model, a critic or a process reward model, in evaluation mode.

    Args:
        path: folder or hub id.
        dtype: a key of `DTYPES`.
        device: a torch device, or auto for the GPU where there is one.
        trust_remote_code: run Python code that the model ships.
        head: of a critic (a token classifier with one label) or a process reward model (one with two); one made of a
            policy's weights starts with values of 0.
        quantization: how its linear layers are held in fewer bits, as transformers takes it; None for as they are.

    Raises:
        DataError: no such model, no safetensors, missing or misshapen weights, or code that is not trusted.
    """
    assert dtype in DTYPES
    place = resolve_device(device)
    folder = local_folder(path, trust_remote_code=trust_remote_code)
    _require_safetensors(folder)
    labels = _LABELS[head]
    try:
        with quiet(warnings=not labels):
            loaded: Any = (AutoModelForTokenClassification if labels else AutoModelForCausalLM).from_pretrained(
                folder,
                **({"num_labels": labels} if labels else {}),
                **({"quantization_config": quantization, "device_map": {"": place}} if quantization else {}),
                dtype=DTYPES[dtype],
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are reported to us, with their names
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unusable(folder, "the model cannot be loaded", error) from error
    model, info = loaded
    missing = set(info["missing_keys"])
    if labels:
        missing -= _zeroed(model, missing)
    wrong = [f"{name} is missing" for name in sorted(missing)]
    wrong += [f"{name} is {tuple(has)}, not {tuple(want)}" for name, has, want in sorted(info["mismatched_keys"])]
    if wrong:
        raise DataError(
            str(folder),
            f"{len(wrong)} weights are missing or of another shape: {', '.join(wrong[:3])}",
            fix="use a complete checkpoint of a causal language model whose config.json belongs to it",
        )
    return model.to(place)


@torch.no_grad()
def _zeroed(model: PreTrainedModel, missing: Collection[str]) -> set[str]:
    """Set those parameters of a critic's head that no checkpoint has given to zero; returns their names."""
    inner = f"{model.base_model_prefix}."
    found = {name: p for name, p in model.named_parameters() if name in missing and not name.startswith(inner)}
    for parameter in found.values():
        # Under ZeRO-3 this rank's part of it.
        getattr(parameter, "ds_tensor", parameter).zero_()
    return set(found)


def load_tokenizer(
    path: str | Path, *, chat_template: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Args:
        path: folder or hub id.
        chat_template: replaces the tokenizer's own: `plain`, a .jinja file, or the template text.
        trust_remote_code: run Python code that the tokenizer ships.

    Raises:
        DataError: there is no tokenizer to load.
    """
    folder = local_folder(path, trust_remote_code=trust_remote_code)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _unusable(folder, "the tokenizer cannot be loaded", error) from error
    if chat_template is not None:
        tokenizer.chat_template = tokenizers.chat_template(chat_template)
    return tokenizer


def resolve_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Raises:
        ConfigError: not a device, or a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError("device", f"'{device}' is not a device", fix="use auto, cpu, cuda or cuda:0") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        problem = f"'{device}' is not there: torch sees {torch.cuda.device_count()} GPUs"
        raise ConfigError("device", problem, fix="use auto or cpu, or install a CUDA build of torch")
    return place


def local_folder(path: str | Path, *, trust_remote_code: bool = False) -> Path:
    """The folder of a model; a hub id is downloaded once and then found in the hub's cache.

    Raises:
        DataError: no such folder, and no such model on the hub or no way to reach it.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(path, Path) or not is_hub_id(path):
        raise DataError(str(path), "no such model folder", fix="check the path, or give a hub id (organisation/name)")
    wanted = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
    try:
        # Subfolders and `consolidated` files hold the same weights in other formats.
        snapshot = snapshot_download(
            path,
            allow_patterns=[*wanted, "*.py"] if trust_remote_code else wanted,
            ignore_patterns=["*/*", "consolidated*"],
        )
    except Exception as error:
        # Connection, HTTP client, cache and validation errors of the hub client share no base class.
        raise _unusable(path, "is no folder here and cannot be fetched from the hub", error) from error
    return Path(snapshot)


def _require_safetensors(folder: Path) -> None:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if any(name.endswith(".safetensors") for name in names):
        return
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise DataError(
            str(folder),
            f"holds its weights as pickles only ({', '.join(pickles[:3])}), which can run code when loaded",
            fix="convert them to safetensors where you trust them, or use a checkpoint that has safetensors",
        )
    raise DataError(str(folder), "holds no weights", fix="give a folder with config.json and *.safetensors files")


def _unusable(where: str | Path, problem: str, error: Exception) -> DataError:
    detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    fix = "check that folder or id is complete and reachable"
    if "trust_remote_code" in str(error):
        fix = "it ships Python code of its own: read that code, then set model.trust_remote_code: true"
    return DataError(str(where), f"{problem}: {detail}", fix=fix)


@contextmanager
def quiet(*, warnings: bool = True) -> Iterator[None]:
    """Without transformers' progress bars; a critic made of a policy also without its warning of another head."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    if not warnings:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
