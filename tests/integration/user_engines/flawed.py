"""The embedded engine with one flaw that `rlhf diagnose` is to name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request
from rollout import transformers_engine
from rollout.transformers_engine import TransformersEngine


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which flaw."""

    flaw: str = ""
    """One of the functions below by name; empty has none."""


def build(cfg: Config, spec: EngineSpec) -> Flawed:
    """The engine."""
    return Flawed(cfg, spec)


class Flawed:
    """Implements `rlhf.core.protocols.Engine`."""

    def __init__(self, cfg: Config, spec: EngineSpec) -> None:
        self._flaws = set(cfg.flaw.split("+"))
        model, self._tokenizer = spec.load()
        if "low_precision" in self._flaws:
            nn.Module.to(model, torch.bfloat16)
        if "other_attention" in self._flaws:
            for layer in model.get_submodule("model.layers").children():
                vars(layer.get_submodule("self_attn"))["scaling"] *= 1.2
        self._plain, _ = spec.load()
        coarse = transformers_engine.Config(mantissa_bits=3 if "coarse_weights" in self._flaws else None)
        self._inner = TransformersEngine(model, self._tokenizer, coarse)
        self._loads, self._claimed = 0, 0

    @property
    def version(self) -> int:
        return self._claimed

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        asked, own = list(requests), sampling
        if "text_prompts" in self._flaws:
            asked = [replace(r, prompt_tokens=self._through_text(r.prompt_tokens)) for r in asked]
        if "own_temperature" in self._flaws and sampling.temperature:
            own = replace(sampling, temperature=1.3 * sampling.temperature)
        done = self._inner.generate(asked, sampling=own)
        if "raw_logprobs" in self._flaws:
            done = [replace(c, logprobs=self._raw(r.prompt_tokens, c.tokens)) for r, c in zip(asked, done, strict=True)]
        return [replace(c, policy_version=self._claimed) for c in done]

    def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        held = list(tensors)
        self._loads, self._claimed = self._loads + 1, version
        if "deaf" not in self._flaws or self._loads == 1:
            self._inner.load_weights(version, held)
        own = dict(self._plain.named_parameters())
        with torch.no_grad():
            for name, tensor in held:
                own[name].copy_(tensor)

    def pause(self) -> None:
        self._inner.pause()

    def resume(self) -> None:
        self._inner.resume()

    def sleep(self) -> None:
        self._inner.sleep()

    def wake(self) -> None:
        self._inner.wake()

    def _through_text(self, tokens: Sequence[int]) -> tuple[int, ...]:
        text = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        assert isinstance(text, str)
        return tuple(self._tokenizer.encode(text))

    @torch.no_grad()
    def _raw(self, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[float, ...]:
        if not tokens:
            return ()
        logits = self._plain(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
        return tuple(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist())
