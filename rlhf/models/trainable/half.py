"""Half fine-tuning: half of the matrices of every stage train, another half in the next; the rest keeps what it knows.

Source: Hui et al. 2024 (HFT, arXiv 2404.18466), section 3; read in notes on the paper, since no code of the authors was
found. Of the three ways to choose, category is the authors' default, layer and model their ablations:

    category   in every layer, 2 of the 4 matrices of the attention; of the 3 of the MLP, 2 in one half of the layers
               and 1 in the other; half of the norms
    layer      half of the layers, whole
    model      half of all matrices of the layers, whatever they are; half of the norms

Embeddings, the output layer and what else lies outside of the layers always train, as in the paper. The choice follows
from the run's seed and the name of the stage: it stays within a stage, through a restart too, and is made anew in the
next one. Deviations: categories are the modules that hold the matrices (`self_attn`, `mlp`), so that architectures with
other numbers of matrices work alike, with an odd one in every other layer; a bias goes with its matrix.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from rlhf.core.errors import ConfigError, did_you_mean
from rlhf.core.seeding import derive_seed
from rlhf.models import shards

LEVELS = ("category", "layer", "model")
_LAYER = re.compile(r"(.*?\.\d+)\.")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which half."""

    level: str = "category"
    """category: half of each kind of matrix; layer: half of the layers; model: half of all matrices."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError("level", f"'{self.level}' is not offered", fix=did_you_mean(self.level, LEVELS))


def prepare(model: PreTrainedModel, cfg: Config, seed: int) -> None:
    """Set `requires_grad` on the half that trains."""
    shapes = {name: shards.shape(parameter) for name, parameter in model.named_parameters()}
    frozen = chosen_to_stay(shapes, cfg, seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)


def chosen_to_stay(shapes: Mapping[str, tuple[int, ...]], cfg: Config, seed: int) -> set[str]:
    """Names of the parameters that do not train.

    Args:
        shapes: of all parameters, by name.
        seed: of the choice.
    """
    rng = random.Random(derive_seed(seed, "half", cfg.level))
    layers = _by_layer(shapes)
    if cfg.level == "layer":
        return {name for layer in rng.sample(list(layers), len(layers) // 2) for name in layers[layer]}
    matrices = {layer: [name for name in names if len(shapes[name]) > 1] for layer, names in layers.items()}
    if cfg.level == "category":
        stay = [name for kind in _categories(matrices) for name in _half_of_each(rng, kind)]
    else:
        everything = [name for names in matrices.values() for name in names]
        stay = rng.sample(everything, len(everything) // 2)
    norms = _norms(shapes)
    frozen = rng.sample(list(norms), len(norms) // 2)
    biases = {_bias(name) for name in stay} & shapes.keys()
    return {*stay, *biases, *(name for norm in frozen for name in norms[norm])}


def _by_layer(names: Iterable[str]) -> dict[str, list[str]]:
    """Names of the parameters of each layer, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if match := _LAYER.match(name):
            found[match.group(1)].append(name)
    return dict(found)


def _categories(matrices: Mapping[str, Sequence[str]]) -> list[list[list[str]]]:
    """Per kind of module, per layer that has it: its matrices."""
    kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for layer, names in matrices.items():
        for name in names:
            inside = name.removeprefix(f"{layer}.").split(".")
            kinds[".".join(inside[: -2 if inside[-1] == "weight" else -1])][layer].append(name)
    return [list(groups.values()) for groups in kinds.values()]


def _half_of_each(rng: random.Random, groups: Sequence[Sequence[str]]) -> list[str]:
    """Half of every group; where that is not a whole number, one more in half of the groups."""
    more = set(rng.sample(range(len(groups)), len(groups) // 2))
    sizes = [len(group) // 2 + (len(group) % 2 and i in more) for i, group in enumerate(groups)]
    return [name for group, size in zip(groups, sizes, strict=True) for name in rng.sample(group, size)]


def _norms(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Parameters of the modules that hold no matrix, by module."""
    modules: dict[str, list[str]] = defaultdict(list)
    for name in shapes:
        modules[name.rpartition(".")[0]].append(name)
    return {module: names for module, names in modules.items() if all(len(shapes[name]) < 2 for name in names)}


def _bias(matrix: str) -> str:
    return f"{matrix.removesuffix('weight')}bias"
