"""One model forward over a packed batch: log-probs and entropy of the target tokens, in bounded memory.

Called by the learner. Hidden states are computed once for all N tokens; the output head and everything of size
vocabulary run on chunks of target tokens and are recomputed in the backward pass, so that peak memory grows with the
chunk and never with T × V. Prompt tokens never reach the head, and a prompt that samples share is computed once.

The log-probs are those of the sampled distribution: temperature, top-k and top-p are applied as the engine applies
them (`rlhf.core.sampling.transform`), with the target token kept in the support. A critic has one value per target
instead, that of the tokens before it, and a process reward model the log-odds of good against bad. On request a policy
also says what it thinks of given tokens, or which it finds likeliest, chunk by chunk like all else; or reads, in place
of targets, mixtures of them with its own guesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf.core.errors import DataError
from rlhf.core.sampling import Transforms, transform
from rlhf.core.training import Batch, ForwardOut, Span, TopK, ValuesOut
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
    topk: int = 0
    """Say which so many tokens are likeliest, and their log-probs: for a teacher."""
    guessed: float = 0.0
    """How much of the embedding that stands for a target, where it is read, is that of the model's own guess at it. Not
    0: a first pass, without gradient, guesses."""


def forward(model: PreTrainedModel, batch: Batch, spec: ForwardSpec) -> ForwardOut | ValuesOut:
    """What a model says about a batch's targets. The model must use `packed_sdpa` (see `use_packed`)."""
    return read(Scorer(model)(batch, spec), spec)


def read(found: Tensor, spec: ForwardSpec) -> ForwardOut | ValuesOut:
    """What a `Scorer` returned: [2, T] and more of a policy, [T] of a critic."""
    if found.ndim == 1:
        return ValuesOut(values_T=found)
    logprobs_T, entropy_T, more_TK = found[0], found[1], found[2:].T
    k = spec.topk
    return ForwardOut(
        logprobs_T=logprobs_T,
        entropy_T=entropy_T if spec.entropy_gradient else entropy_T.detach(),
        topk_logprobs_TK=more_TK if more_TK.shape[1] and not k else None,
        topk=TopK(more_TK[:, :k].long(), more_TK[:, k:]) if k else None,
    )


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
        """What `Heads` returns [2 or more, T], or values [T]."""
        layout = attention.packing(batch.spans, batch.tokens_N.device)
        if spec.guessed:
            hidden_TD = self._hidden(batch, layout, inputs_embeds=self._mixed(batch, layout, spec))
        else:
            hidden_TD = self._hidden(batch, layout, input_ids=batch.tokens_N[None])
        given = () if batch.topk_ids_TK is None or isinstance(self.heads, Values) else (batch.topk_ids_TK,)
        return self.heads(hidden_TD, batch.targets_T, spec, *given)

    def _hidden(self, batch: Batch, layout: attention.Packing, **inputs: Tensor) -> Tensor:
        """Hidden states that predict the targets."""
        out = self.model.base_model(position_ids=batch.positions_N[None], use_cache=False, packing=layout, **inputs)
        return out.last_hidden_state[0].index_select(0, batch.predictor_T)

    def _mixed(self, batch: Batch, layout: attention.Packing, spec: ForwardSpec) -> Tensor:
        """Embeddings [1, N, D] in which targets are mixed with what the model would have written in their place."""
        with torch.no_grad():
            hidden_TD = self._hidden(batch, layout, input_ids=batch.tokens_N[None])
            guess = replace(spec, topk=1, guessed=0.0, entropy_gradient=False)
            guesses_T = self.heads(hidden_TD, batch.targets_T, guess)[2].long()
        place_T, is_read_T = _own_places(batch)
        guessed_N = batch.tokens_N.index_copy(0, place_T[is_read_T], guesses_T[is_read_T])
        true_ND, guessed_ND = self.model.get_input_embeddings()(torch.stack([batch.tokens_N, guessed_N]))
        return torch.lerp(true_ND, guessed_ND, spec.guessed)[None]


class Heads(nn.Module):
    """The output head over all chunks of a batch, on the parameters of the model's own head.

    One module, so that sharded parameters are gathered once per pass and not once per chunk, and so that ranks with
    batches of different sizes still run the same modules in the same order.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = head.weight, head.bias
        self.vocabulary = head.out_features

    def forward(self, hidden_TD: Tensor, targets_T: Tensor, spec: ForwardSpec, ids_TK: Tensor | None = None) -> Tensor:
        """Log-probs and entropies [2, T]; below them the log-probs of `ids_TK` [K], or with `spec.topk` the ids [K] and
        the log-probs [K] of the likeliest tokens."""

        def one(hidden: Tensor, targets: Tensor, ids: Tensor) -> Tensor:
            logits = functional.linear(hidden, self.weight, self.bias)
            logits = logits if logits.dtype == torch.float64 else logits.float()
            return _token_stats(transform(logits, spec.transforms, keep=targets), targets, ids, spec)

        total = targets_T.shape[0]
        ids_TK = targets_T.new_empty(total, 0) if ids_TK is None or spec.topk else ids_TK
        rows = _chunk_rows(self.vocabulary, spec.chunk_mib, total=total)
        if rows >= total:
            return one(hidden_TD, targets_T, ids_TK)
        chunks = zip(hidden_TD.split(rows), targets_T.split(rows), ids_TK.split(rows), strict=True)
        return torch.cat([_recomputed(one, *chunk) for chunk in chunks], dim=1)


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


def _own_places(batch: Batch) -> tuple[Tensor, Tensor]:
    """Where in N each target is itself read [T], and whether it is: the last of a sequence is not."""
    first_S = torch.tensor([span.own.start for span in batch.spans], device=batch.tokens_N.device)
    stop_S = torch.tensor([span.own.stop for span in batch.spans], device=batch.tokens_N.device)
    place_T = torch.maximum(batch.predictor_T + 1, first_S[batch.sequence_T])
    return place_T, place_T < stop_S[batch.sequence_T]


def _recomputed(one: Callable[[Tensor, Tensor, Tensor], Tensor], hidden: Tensor, targets: Tensor, ids: Tensor) -> Any:
    """Run a chunk and forget its logits; the backward pass computes them again."""
    if not torch.is_grad_enabled():
        return one(hidden, targets, ids)
    return checkpoint(one, hidden, targets, ids, use_reentrant=False, preserve_rng_state=False)


def _token_stats(logits_TV: Tensor, targets_T: Tensor, ids_TK: Tensor, spec: ForwardSpec) -> Tensor:
    logprobs_TV = logits_TV.log_softmax(dim=-1)
    picked_TK = logprobs_TV.gather(1, torch.cat([targets_T[:, None], ids_TK], dim=1))
    with torch.set_grad_enabled(torch.is_grad_enabled() and spec.entropy_gradient):
        # Tokens outside the support have log-prob -inf and probability 0: their product counts as 0.
        entropy_T = -(logprobs_TV.exp() * logprobs_TV.masked_fill(logprobs_TV == float("-inf"), 0.0)).sum(dim=-1)
    rows = [picked_TK[:, :1], entropy_T[:, None], picked_TK[:, 1:]]
    if spec.topk:
        # As numbers among others: exact up to 2^24, which no vocabulary reaches.
        likeliest = logprobs_TV.topk(spec.topk, dim=-1)
        rows += [likeliest.indices.to(logprobs_TV.dtype), likeliest.values]
    return torch.cat(rows, dim=1).T


def _chunk_rows(vocabulary: int, chunk_mib: int, *, total: int) -> int:
    return max(1, chunk_mib * MIB // (4 * vocabulary)) if chunk_mib else max(1, total)
