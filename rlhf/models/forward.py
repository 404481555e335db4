"""One model forward over a packed batch: log-probs and entropy of the target tokens, in bounded memory.

Called by the learner. Hidden states are computed once for all N tokens; the output head and everything of size
vocabulary run on chunks of target tokens and are recomputed in the backward pass, so that peak memory grows with the
chunk and never with T × V. Prompt tokens never reach the head, and a prompt that samples share is computed once.

The log-probs are those of the sampled distribution: temperature, top-k and top-p are applied as the engine applies
them (`rlhf.core.sampling.transform`), with the target token kept in the support. A critic has one value per target
instead, that of the tokens before it, and a process reward model the log-odds of good against bad.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf.core.errors import DataError
from rlhf.core.sampling import Transforms, transform
from rlhf.core.training import Batch, ForwardOut, Span, ValuesOut
from rlhf.models import attention

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardSpec:
    """How log-probs are computed."""

    transforms: Transforms
    chunk_mib: int
    """Size of one chunk of float32 logits; 0 materialises them all."""
    entropy_gradient: bool
    """Keep the graph of the entropy, for an entropy bonus."""


def forward(model: PreTrainedModel, batch: Batch, spec: ForwardSpec) -> ForwardOut | ValuesOut:
    """What a model says about a batch's targets. The model must use `packed_sdpa` (see `use_packed`)."""
    return read(Scorer(model)(batch, spec), spec)


def read(found: Tensor, spec: ForwardSpec) -> ForwardOut | ValuesOut:
    """What a `Scorer` returned: [2, T] of a policy, [T] of a critic."""
    if found.ndim == 1:
        return ValuesOut(values_T=found)
    logprobs_T, entropy_T = found
    return ForwardOut(logprobs_T=logprobs_T, entropy_T=entropy_T if spec.entropy_gradient else entropy_T.detach())


def scores(out: ForwardOut | ValuesOut) -> Tensor:
    """[T]: the log-probs of a policy, the values of a critic."""
    return out.values_T if isinstance(out, ValuesOut) else out.logprobs_T


class Scorer(nn.Module):
    """The forward pass as one module, for backends that shard a model module by module.

    Such backends hang hooks on what modules take and return, and need the same ones on every rank: a module returns one
    tensor, whether or not the entropy has a gradient.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        head = output_head(model)
        self.heads = Values(head) if has_values(model) else Heads(head)

    def forward(self, batch: Batch, spec: ForwardSpec) -> Tensor:
        """Log-probs and entropies [2, T], or values [T]."""
        layout = attention.packing(batch.spans, batch.tokens_N.device)
        hidden_ND = self.model.base_model(
            input_ids=batch.tokens_N[None],
            position_ids=batch.positions_N[None],
            use_cache=False,
            packing=layout,
        ).last_hidden_state[0]
        return self.heads(hidden_ND.index_select(0, batch.predictor_T), batch.targets_T, spec)


class Heads(nn.Module):
    """The output head over all chunks of a batch, on the parameters of the model's own head.

    One module, so that sharded parameters are gathered once per pass and not once per chunk, and so that ranks with
    batches of different sizes still run the same modules in the same order.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias
        self.vocabulary = head.out_features

    def forward(self, hidden_TD: Tensor, targets_T: Tensor, spec: ForwardSpec) -> Tensor:
        """Log-probs and entropies [2, T]."""

        def one(hidden: Tensor, targets: Tensor) -> Tensor:
            logits = functional.linear(hidden, self.weight, self.bias)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            return _token_stats(transform(logits, spec.transforms, keep=targets), targets, spec.entropy_gradient)

        rows = _chunk_rows(self.vocabulary, spec.chunk_mib, total=targets_T.shape[0])
        if rows >= targets_T.shape[0]:
            return one(hidden_TD, targets_T)
        parts = [_recomputed(one, h, t) for h, t in zip(hidden_TD.split(rows), targets_T.split(rows), strict=True)]
        return torch.cat(parts, dim=1)


class Values(nn.Module):
    """The head of a critic or of a process reward model, on the parameters of the model's own.

    Two labels, bad and good, are one number: the softmax over them is the logistic function of their difference.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias
        self.labels = head.out_features

    def forward(self, hidden_TD: Tensor, targets_T: Tensor, spec: ForwardSpec) -> Tensor:
        """Values [T]."""
        # Not a product of a matrix and a vector: on CPUs its rounding follows from where in memory the vector lies, and
        # a run that goes on from a checkpoint would no longer be the same to the bit.
        weight_D = self.weight[0] if self.labels == 1 else self.weight[1] - self.weight[0]
        values_T = (hidden_TD * weight_D).sum(dim=-1)
        if self.bias is not None:
            values_T = values_T + (self.bias[0] if self.labels == 1 else self.bias[1] - self.bias[0])
        return values_T if values_T.dtype == torch.float64 else values_T.float()


def has_values(model: PreTrainedModel) -> bool:
    """Whether the model is a critic or a process reward model: it has no distribution over tokens."""
    return model.get_output_embeddings() is None


def output_head(model: PreTrainedModel) -> nn.Linear:
    """The layer that makes logits, or values, of hidden states."""
    head = _head(model)
    assert isinstance(head, nn.Linear), "use_packed has checked that the model ends with a linear layer"
    return head


def _head(model: PreTrainedModel) -> nn.Module | None:
    return value_head(model) if has_values(model) else model.get_output_embeddings()


def value_head(model: PreTrainedModel) -> nn.Linear:
    """The only linear layer beside the body of a model for token classification: `score`, or `classifier`.

    Raises:
        DataError: there is none, or there are several.
    """
    found = [layer for layer in model.children() if isinstance(layer, nn.Linear)]
    if len(found) != 1 or found[0].out_features not in (1, 2):
        problem = f"{type(model).__name__} does not end with one linear layer that gives one value or two per token"
        fix = "use a policy, or a token classifier with one label (a critic) or two (a process reward model)"
        raise DataError("critic.path", problem, fix=fix)
    return found[0]


def use_packed(model: PreTrainedModel, *, where: str) -> None:
    """Switch a model to packed attention and check that its logits are its head applied to its hidden states.

    Raises:
        DataError: the architecture takes no pluggable attention, or changes logits after its head.
    """
    if not model._supports_attention_backend:
        fix = "use an architecture of transformers 5 with pluggable attention (Llama, Qwen, Mistral, Gemma, GPT-2, …)"
        raise DataError(where, f"{type(model).__name__} takes no pluggable attention function", fix=fix)
    attention.register()
    device = model.device
    tokens = torch.arange(1, 9, device=device) % model.config.get_text_config().vocab_size
    with torch.no_grad():
        plain = model(input_ids=tokens[None], use_cache=False).logits[0]
        model.set_attn_implementation(attention.NAME)
        layout = attention.packing([Span(range(8), range(8, 8))], device)
        inner = model.base_model(
            input_ids=tokens[None], position_ids=torch.arange(8, device=device)[None], use_cache=False, packing=layout
        )
        head = _head(model)
        ours = head(inner.last_hidden_state[0]) if isinstance(head, nn.Linear) else torch.full_like(plain, torch.nan)
    gap = (plain.float() - ours.float()).abs().max().item()
    limit = 1e-3 if plain.dtype in (torch.float32, torch.float64) else 0.25
    if not gap <= limit * max(1.0, plain.abs().max().item()):
        fix = "use another architecture: this one scales or caps logits after its output layer, or masks unusually"
        raise DataError(where, f"packed logits of {type(model).__name__} differ from its own by {gap:.3g}", fix=fix)


def _recomputed(one: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Any:
    """Run a chunk and forget its logits; the backward pass computes them again."""
    if not torch.is_grad_enabled():
        return one(hidden, targets)
    return checkpoint(one, hidden, targets, use_reentrant=False, preserve_rng_state=False)


def _token_stats(logits_TV: Tensor, targets_T: Tensor, entropy_gradient: bool) -> Tensor:
    logprobs_TV = logits_TV.log_softmax(dim=-1)
    logprobs_T = logprobs_TV.gather(1, targets_T[:, None]).squeeze(1)
    with torch.set_grad_enabled(torch.is_grad_enabled() and entropy_gradient):
        # Tokens outside the support have log-prob -inf and probability 0: their product counts as 0.
        entropy_T = -(logprobs_TV.exp() * logprobs_TV.masked_fill(logprobs_TV == float("-inf"), 0.0)).sum(dim=-1)
    return torch.stack([logprobs_T, entropy_T])


def _chunk_rows(vocabulary: int, chunk_mib: int, *, total: int) -> int:
    return max(1, chunk_mib * MIB // (4 * vocabulary)) if chunk_mib else max(1, total)
