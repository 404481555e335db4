"""New weights on their way into a model of vLLM, in one of its workers.

Used by `rollout.vllm_worker` and by the transfer engine of `rollout.shm_transfer`. Weights arrive in parts, under the
names and shapes of the checkpoint; vLLM's own `load_weights` fuses and shards them. There are two ways:

* vLLM's reload of layers: each is put together anew and processed as after the first load (the CPU build packs it for
  its matrix products). This is what vLLM's own transfer engines do, and right for every model.
* In place, where a model keeps its weights as they were sent: a plain float32 model on the CPU with `prepack: false`.
  One copy instead of two and the packing, and nothing is held back until its layer is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from vllm import _custom_ops
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

if TYPE_CHECKING:
    from vllm.config import ModelConfig

_PLAIN = (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)


def keep_layout() -> None:
    """Have the CPU build compute with weights as they are stored, for models loaded from now on in this process."""
    _custom_ops._supports_onednn = False


class Loading:
    """One update after the other of a model's weights.

    Args:
        model: loaded.
        config: what vLLM knows of it.
    """

    def __init__(self, model: nn.Module, config: ModelConfig) -> None:
        self._model, self._config = model, config
        self._in_place = _stored_as_sent(model)

    def start(self) -> None:
        """Get ready for a whole set of weights."""
        if not self._in_place:
            initialize_layerwise_reload(self._model)

    def load(self, weights: Iterable[tuple[str, Tensor]], *, borrowed: bool) -> None:
        """Take some of them.

        Args:
            borrowed: the tensors may be overwritten when this returns. A layer that is incomplete keeps its tensors.
        """
        model: Any = self._model
        model.load_weights(_own(weights) if borrowed and not self._in_place else weights)

    def finish(self) -> None:
        """All have come, or no more will: leave the model in order. Layers without new weights have their old ones."""
        if self._in_place:
            return
        finalize_layerwise_reload(self._model, self._config)
        if current_platform.is_cpu():
            _pack_tied_heads(self._model)


def _own(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in weights:
        yield name, tensor.clone()


def _stored_as_sent(model: nn.Module) -> bool:
    if not current_platform.is_cpu() or _custom_ops._supports_onednn:
        return False
    methods = {type(method) for layer in model.modules() if (method := vars(layer).get("quant_method")) is not None}
    # The packed layout of a float32 layer is oneDNN's alone; other types have kernels of their own.
    return methods <= set(_PLAIN) and all(weight.dtype == torch.float32 for weight in model.parameters())


def _pack_tied_heads(model: nn.Module) -> None:
    """Pack the output head again where it shares the embedding's weight: vLLM's reload packs the embedding alone."""
    heads = [layer for layer in model.modules() if isinstance(layer, ParallelLMHead)]
    rest = [layer for layer in model.modules() if not isinstance(layer, ParallelLMHead)]
    embedded = {id(weight) for layer in rest for weight in layer.parameters(recurse=False)}
    for head in heads:
        if id(head.weight) in embedded:
            head.quant_method.process_weights_after_loading(head)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
