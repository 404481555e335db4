"""The embedded engine: samples from any Hugging Face causal model, on CPU or one GPU, in this process.

A prompt is prefilled once for its whole group; finished samples are retired from the batch instead of being decoded
on; a request's tokens depend on weights, prompt and its own seed, never on its neighbours. Log-probs are float32 and
those of the distribution that was sampled from (`rlhf.core.sampling.transform`). With `mantissa_bits` it samples from
a model of lower precision than the trainer's, so that the mismatch of quantised samplers can be studied anywhere.

Invariants: the batch is left-padded, so that all rows write the same cache column; `Rows` and the `Decoding`
hold the same rows in the same order. Models with recurrent layers have no such cache and are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.core.errors import ConfigError
from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request, StopReason
from rollout.cached_model import CachedModel, Decoder
from rollout.decoding import Ended, Rows
from rollout.rounding import round_mantissa, stored_bits
from rollout.token_masks import Hold, TokenMasks

_FLOAT32_BITS = 23


@dataclass(frozen=True, kw_only=True)
class Config:
    """How the embedded engine batches, and how precise its weights are."""

    max_batch: int = 512
    """Samples decoded together, at most; the others wait for the next round."""
    retire_share: float = 0.125
    """Finished samples leave the batch once they make up this share of it; retiring copies the cache of the rest."""
    mantissa_bits: int | None = None
    """Round the sampler's weights, but not the trainer's, to this many stored mantissa bits, to the nearest, ties to
    even: 7 is bfloat16, 3 like fp8 e4m3 without its limits of range. Evaluation sees them too. null leaves them."""

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise ConfigError("max_batch", f"{self.max_batch} leaves no room", fix="use 1 or more")
        if not 0 < self.retire_share <= 1:
            raise ConfigError("retire_share", f"{self.retire_share} is not in (0, 1]", fix="use 0.125")
        if self.mantissa_bits is not None and not 1 <= self.mantissa_bits <= _FLOAT32_BITS:
            problem = f"{self.mantissa_bits} is not in 1 to {_FLOAT32_BITS}"
            raise ConfigError("mantissa_bits", problem, fix="use 7 for bfloat16, 3 for fp8, or null for no rounding")


def build(cfg: Config, spec: EngineSpec) -> TransformersEngine:
    """The engine for a model folder."""
    model, tokenizer = spec.load()
    return TransformersEngine(model, tokenizer, cfg)


class TransformersEngine:
    """Implements `rlhf.core.protocols.Engine`. Not thread-safe: one `generate` at a time.

    Args:
        model: gets the weights that are loaded, and says what ends an answer.
        tokenizer: of the model.
        cfg: see `Config`.
        decoder: gives the logits that are sampled from; those of the model alone where there is none.

    Raises:
        DataError: a model with recurrent layers.
        ConfigError: `mantissa_bits` beyond those of the model's type.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        cfg: Config,
        *,
        decoder: Decoder | None = None,
    ) -> None:
        self._decoder = decoder or CachedModel(model, where="model.path")
        if cfg.mantissa_bits is not None and cfg.mantissa_bits > (stored := stored_bits(model.dtype)):
            problem = f"{cfg.mantissa_bits} are more than the {stored} of {model.dtype} weights"
            raise ConfigError("engine.mantissa_bits", problem, fix=f"use {stored} or less, or model.dtype=float32")
        self._model = model
        self._tokenizer = tokenizer
        self._cfg = cfg
        if cfg.mantissa_bits is not None:
            self._copy(model.named_parameters())
        self._version = 0
        self._paused = False
        self._masks: TokenMasks | None = None
        self._eos = torch.tensor(sorted(_eos_ids(model, tokenizer)), device=model.device)

    @property
    def interruptible(self) -> bool:
        """False: one `generate` at a time, to its end."""
        return False

    @property
    def version(self) -> int:
        """Version of the weights in use."""
        return self._version

    def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Copy new weights in place, rounded to `mantissa_bits`.

        Raises:
            KeyError: a name that the model does not have.
        """
        self._copy(tensors)
        self._version = version

    def pause(self) -> None:
        """Refuse to generate until `resume`, while weights are in motion."""
        self._paused = True

    def resume(self) -> None:
        """Generate again."""
        self._paused = False

    def sleep(self) -> None:
        """Move the weights off a GPU; on a CPU there is nothing to give back."""
        self._decoder.to(torch.device("cpu"))

    def wake(self) -> None:
        """Move the weights back."""
        self._decoder.to(self._eos.device)

    @torch.inference_mode()
    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        """One completion per request, in request order.

        A prompt that leaves no room in the model's context comes back empty with `StopReason.ABORTED`.
        """
        assert not self._paused, "generate called while weights are being loaded"
        done: dict[str, Completion] = {}
        fitting = [r for r in requests if len(r.prompt_tokens) < self._decoder.context]
        for batch in self._rounds(fitting):
            for ended in self._round(batch, sampling):
                request = batch[ended.index]
                done[request.id] = self._completion(request, ended, sampling)
        aborted = Ended(0, [], [], StopReason.ABORTED)
        return [done.get(r.id) or self._completion(r, aborted, sampling) for r in requests]

    @torch.no_grad()
    def _copy(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        own = dict(self._model.named_parameters())
        bits = self._cfg.mantissa_bits
        for name, tensor in tensors:
            own[name].copy_(tensor if bits is None else round_mantissa(tensor, bits=bits))

    def _rounds(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Rounds of `max_batch` requests, samples of one prompt next to each other."""
        groups: dict[tuple[int, ...], list[Request]] = {}
        for request in requests:
            groups.setdefault(request.prompt_tokens, []).append(request)
        ordered = [request for group in groups.values() for request in group]
        for start in range(0, len(ordered), self._cfg.max_batch):
            yield ordered[start : start + self._cfg.max_batch]

    def _round(self, requests: list[Request], sampling: Sampling) -> Iterator[Ended]:
        prompts = list(dict.fromkeys(r.prompt_tokens for r in requests))
        tokens, prompt_mask = _left_padded(prompts, self._model.device)
        decoding = self._decoder.start(tokens.shape[1] + sampling.max_tokens)
        logits = decoding.read(tokens, prompt_mask, (prompt_mask.cumsum(dim=1) - 1).clamp(min=0))

        place = {prompt: i for i, prompt in enumerate(prompts)}
        expand = torch.tensor([place[r.prompt_tokens] for r in requests], device=tokens.device)
        decoding.select(expand)
        logits = logits[expand]
        rows = Rows(
            requests,
            prompt_mask=prompt_mask[expand],
            context=self._decoder.context,
            sampling=sampling,
            holds=self._holds(requests),
        )
        for column in range(sampling.max_tokens):
            token = rows.draw(logits, column, self._eos)
            if sampling.stop:
                rows.end_stopped(self._has_stop(rows, column, sampling.stop), column)
            rows.end_spent(column)
            if rows.num_ended() >= self._cfg.retire_share * len(rows):
                ended, stay = rows.retire()
                yield from ended
                if not len(rows):
                    return
                decoding.select(stay)
                token = token[stay]
            mask = rows.mask[:, : tokens.shape[1] + column + 1]
            logits = decoding.read(token[:, None], mask, rows.positions(column))

    def _holds(self, requests: Sequence[Request]) -> list[Hold | None]:
        """What keeps requests to their patterns; nothing where none has one."""
        if not any(request.pattern for request in requests):
            return []
        if self._masks is None:
            self._masks = TokenMasks(self._tokenizer, ends=self._eos.tolist(), device=self._eos.device)
        return [self._masks.hold(request.pattern) if request.pattern else None for request in requests]

    def _has_stop(self, rows: Rows, column: int, stop: Sequence[str]) -> Tensor:
        """[R] whether a stop string ends in the newest tokens. A token may hold no more than a byte of a character."""
        recent = rows.recent(column, 4 * max(map(len, stop)) + 4).tolist()
        texts = self._tokenizer.batch_decode(recent, skip_special_tokens=True)
        return torch.tensor([any(s in text for s in stop) for text in texts], device=self._eos.device)

    def _completion(self, request: Request, ended: Ended, sampling: Sampling) -> Completion:
        text = self._tokenizer.decode(ended.tokens, skip_special_tokens=True)
        assert isinstance(text, str)
        for stop in sampling.stop:
            text = text.split(stop, 1)[0]
        return Completion(
            request_id=request.id,
            tokens=tuple(ended.tokens),
            logprobs=tuple(ended.logprobs),
            text=text,
            stop=ended.stop,
            policy_version=self._version,
        )


def _left_padded(prompts: Sequence[tuple[int, ...]], device: torch.device) -> tuple[Tensor, Tensor]:
    """([P, L] tokens, [P, L] bool mask). Padding columns hold token 0, which the mask hides."""
    width = max(map(len, prompts))
    tokens = torch.tensor([(0,) * (width - len(p)) + p for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    return tokens, torch.arange(width, device=device) >= (width - lengths)[:, None]


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Every token that ends a turn, as the tokenizer and the model's generation config say."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = [configured] if isinstance(configured, int) else list(configured or [])
    return {i for i in [tokenizer.eos_token_id, *listed] if i is not None}
