"""`rlhf merge`: several fine-tunes of one model as one model, by task vectors with sparse masks.

    onto: Qwen/Qwen2.5-0.5B              # what all were fine-tuned from
    models: [runs/sums/checkpoints/step_600, runs/differences/checkpoints/step_600]
    out: merged
    alpha: 0.3                           # beta, gamma: see rlhf.models.task_vectors

The result is a folder in Hugging Face format with config and tokenizer of the base, whose weights are read, merged and
written tensor by tensor, so that models of any size can be merged on any machine. It appears whole or not at all, with
`merge.json`: settings, and the hashes of all weights that went into it. Parents that do not have the base's
architecture, vocabulary and shapes are refused before anything is written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor
from transformers import AutoConfig

from rlhf.core import config
from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import TensorMeta
from rlhf.learner import streams
from rlhf.loops.stage import CURRICULUM
from rlhf.models import load, task_vectors
from rlhf.models.stored import StoredWeights

PROVENANCE = "merge.json"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.gguf")
_OWN = ("manifest.json", "state.json", CURRICULUM, PROVENANCE)
"""What a checkpoint, or a merge, says of itself and not of its model."""
_MEANS = ("model_type", "architectures", "tie_word_embeddings", "rope_parameters")
"""Keys of a config that decide what weights of the same shapes mean."""


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """A merge file."""

    onto: str = ""
    """The model that all others were fine-tuned from: a folder or a hub id. The result has its config and tokenizer."""
    models: list[str] = field(default_factory=list[str])
    """Fine-tuned models: folders or hub ids."""
    out: str = ""
    """Folder of the result; must not be there yet."""
    alpha: float = 0.3
    """What a task vector counts in the sum."""
    weights: list[float] = field(default_factory=list[float])
    """A further factor per model, in order; empty is 1 for each."""
    beta: float = 0.85
    """Share of the entries of each tensor, the smallest of each task vector, that is left out; 0 keeps them."""
    gamma: float = 0.99
    """Place in the order by size, as a share, from which on entries are left out as outliers; 1 keeps them."""
    shard_gb: float = 50.0
    """Largest file of the result, in units of 10^9 bytes."""
    trust_remote_code: bool = False
    """Run Python code that the models ship. Read that code first."""

    def __post_init__(self) -> None:
        for name in ("onto", "models", "out"):
            if not vars(self)[name]:
                raise ConfigError(name, "is required", fix=f"set {name}=…")
        if self.weights and len(self.weights) != len(self.models):
            problem = f"{len(self.weights)} weights for {len(self.models)} models"
            raise ConfigError("weights", problem, fix="give one for each model, or none")
        for name in ("beta", "gamma"):
            if not 0 <= vars(self)[name] <= 1:
                raise ConfigError(name, f"{vars(self)[name]} is not a share", fix="use 0 to 1")
        if self.beta >= self.gamma:
            problem = f"leaves nothing of a task vector: {self.beta} is not below gamma={self.gamma}"
            raise ConfigError("beta", problem, fix="use 0.85 and 0.99, or 0 and 1 to keep everything")
        if self.shard_gb <= 0:
            raise ConfigError("shard_gb", f"{self.shard_gb} holds nothing", fix="use 50, or 5 for smaller files")

    @property
    def factors(self) -> list[float]:
        """What the task vector of each model counts."""
        return [self.alpha * weight for weight in self.weights or [1.0] * len(self.models)]


def read(path: Path, overrides: Sequence[str] = ()) -> MergeConfig:
    """A merge file, checked.

    Raises:
        ConfigError: with the key, the valid choices and the fix.
    """
    return config.build(MergeConfig, config.load(path, overrides).tree)


def merge(cfg: MergeConfig) -> Path:
    """Write the merged model.

    Returns:
        Its folder.

    Raises:
        DataError: a model cannot be used, or does not fit the base. ConfigError: `out` is there already.
    """
    out = Path(cfg.out)
    if out.exists():
        raise ConfigError("out", f"{out} is there already", fix="choose another folder, or remove that one")
    base = load.local_folder(cfg.onto, trust_remote_code=cfg.trust_remote_code)
    folders = [load.local_folder(path, trust_remote_code=cfg.trust_remote_code) for path in cfg.models]
    start, tuned = StoredWeights(base), [StoredWeights(folder) for folder in folders]
    metas = [start.describe(name) for name in start.names]
    for folder, weights in zip(folders, tuned, strict=True):
        _check_meaning(base, folder, trust=cfg.trust_remote_code)
        _check_shapes(metas, weights, folder)
    hidden = out.with_name(f".{out.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        shutil.copytree(base, hidden, ignore=_not_the_model)
        streams.write_model(hidden, metas, _tensors(cfg, start, tuned), limit=int(cfg.shard_gb * 1e9))
        made_of = [_source(path, weights) for path, weights in zip(cfg.models, tuned, strict=True)]
        record = {"onto": _source(cfg.onto, start), "models": made_of, "settings": asdict(cfg), **_versions()}
        (hidden / PROVENANCE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        hidden.rename(out)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        fix = "free disk space or mend the folder's permissions, then run the same command again"
        raise DataError(str(out), f"the merged model cannot be written: {error}", fix=fix) from error
    return out


def show(cfg: MergeConfig) -> None:
    """Merge, and say what came of it."""
    console = Console(markup=False, highlight=False)
    kept = cfg.gamma - cfg.beta
    for path, factor in zip(cfg.models, cfg.factors, strict=True):
        console.print(f"{path}: {kept:.1%} of its task vector, times {factor:g}")
    console.print(f"{merge(cfg)}: merged onto {cfg.onto}; {PROVENANCE} says of what")


def _tensors(cfg: MergeConfig, start: StoredWeights, tuned: Sequence[StoredWeights]) -> Iterator[tuple[str, Tensor]]:
    """The weights of the result, one by one."""
    for name in start.names:
        parents = ((factor, weights.get(name)) for factor, weights in zip(cfg.factors, tuned, strict=True))
        yield name, task_vectors.merged(start.get(name), parents, beta=cfg.beta, gamma=cfg.gamma)


def _check_meaning(base: Path, other: Path, *, trust: bool) -> None:
    """Two models read the same tokens and compute the same function of their weights."""
    one, two = (_meaning(folder, trust=trust) for folder in (base, other))
    for key in _MEANS:
        if one[key] != two[key]:
            problem = f"its config has {key}={two[key]}, that of {base} has {one[key]}"
            raise DataError(str(other), problem, fix="merge models that were fine-tuned from the same base")
    vocabularies = [load.load_tokenizer(f, trust_remote_code=trust).get_vocab() for f in (base, other)]
    if vocabularies[0] != vocabularies[1]:
        differing = sorted(dict(vocabularies[0].items() ^ vocabularies[1].items()))
        problem = f"its vocabulary differs from that of {base} in {len(differing)} tokens: {differing[:3]}"
        raise DataError(str(other), problem, fix="merge models that share one tokenizer")


def _meaning(folder: Path, *, trust: bool) -> dict[str, Any]:
    try:
        found: Any = AutoConfig.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    except (OSError, ValueError) as error:
        fix = "give a model folder in Hugging Face format; a LoRA adapter has to be merged into its model first"
        raise DataError(str(folder), f"holds no config.json that can be read: {error}", fix=fix) from error
    told = found.get_text_config().to_dict() | {key: found.to_dict().get(key) for key in _MEANS[:2]}
    return {key: told.get(key) for key in _MEANS}


def _check_shapes(metas: Sequence[TensorMeta], other: StoredWeights, folder: Path) -> None:
    """Two models have the same tensors."""
    fix = "merge models that were fine-tuned from the same base, saved in the same form"
    names = {meta.name for meta in metas} ^ set(other.names)
    if names:
        own = [name for name in sorted(names) if name in set(other.names)]
        kind = "has tensors that the base has not" if own else "lacks tensors of the base"
        raise DataError(str(folder), f"{kind}: {', '.join((own or sorted(names))[:3])}", fix=fix)
    for meta in metas:
        there = other.describe(meta.name)
        if there.shape != meta.shape or there.dtype.is_floating_point != meta.dtype.is_floating_point:
            problem = f"{meta.name} is {there.dtype} {there.shape}, in the base {meta.dtype} {meta.shape}"
            raise DataError(str(folder), problem, fix=fix)


def _not_the_model(folder: str, names: list[str]) -> set[str]:
    """What of a base's folder does not go over: weights, subfolders, and what is said of them."""
    here = Path(folder)
    weights = {path.name for pattern in _WEIGHTS for path in here.glob(pattern)}
    return weights | {name for name in names if (here / name).is_dir() or name in _OWN}


def _source(path: str, weights: StoredWeights) -> dict[str, Any]:
    return {"path": path, "sha256": weights.hashes()}


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "safetensors", "transformers")}
