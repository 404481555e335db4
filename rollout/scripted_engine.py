"""An engine that plays back written texts: for tests, and for trying out tasks, rewards and loops without sampling.

A sample's text is chosen by its prompt and its place in the group, read from the request's id
(`rlhf.core.seeding.trajectory_id`). Tokens come from the model's own tokenizer; EOS, stop strings, token budget and
context end a sample as they do in `transformers_engine`. Log-probs are drawn from the request's seed: below 0, the
same at every call, and those of no model. Weights are checked by name and shape and not kept, so that a loop around
this engine moves versions but changes no answer.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.core.errors import ConfigError
from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request, StopReason

_NAME = re.compile(r"-?\d+-\d+-(?P<prompt>.*)-(?P<index>\d+)(~(?P<further>\d+))?([.+?]\S*)?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to play back."""

    completions: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Texts by prompt id or by a piece of the rendered prompt, id first. Sample i of a group gets text i, from the
    start again where there are more samples than texts."""
    default: list[str] = field(default_factory=list[str])
    """Texts for every other prompt; empty refuses prompts that are not named."""
    fail_calls: list[int] = field(default_factory=list[int])
    """Calls of `generate`, counted from 1, that raise `ScriptedFailure`."""

    def __post_init__(self) -> None:
        if not self.completions and not self.default:
            raise ConfigError("completions", "there is nothing to play back", fix="give completions, or default")
        empty = [key for key, texts in self.completions.items() if not texts]
        if empty:
            raise ConfigError("completions", f"there is no text for {empty}", fix="give one text or more")


class ScriptedFailure(RuntimeError):
    """A failure that was asked for."""


def build(cfg: Config, spec: EngineSpec) -> ScriptedEngine:
    """The engine for a model folder, of which it reads tokenizer, context and names of weights."""
    model, tokenizer = spec.load()
    return ScriptedEngine(model, tokenizer, cfg)


class ScriptedEngine:
    """Implements `rlhf.core.protocols.Engine`."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cfg: Config) -> None:
        self._tokenizer, self._cfg = tokenizer, cfg
        self._shapes = {name: p.shape for name, p in model.named_parameters()}
        self._context: int = model.config.get_text_config().max_position_embeddings
        self._version = 0
        self._calls = 0
        self._paused = False

    @property
    def interruptible(self) -> bool:
        """False: one `generate` at a time, to its end."""
        return False

    @property
    def version(self) -> int:
        """Version of the weights last loaded."""
        return self._version

    def load_weights(self, version: int, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Take note of new weights.

        Raises:
            KeyError: a name that the model does not have. ValueError: a tensor of another shape.
        """
        for name, tensor in tensors:
            if tensor.shape != self._shapes[name]:
                raise ValueError(f"{name} is {tuple(tensor.shape)}, not {tuple(self._shapes[name])}")
        self._version = version

    def pause(self) -> None:
        """Refuse to generate until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Generate again."""
        self._paused = False

    def sleep(self) -> None:
        """It holds nothing."""

    def wake(self) -> None:
        """It holds nothing."""

    def generate(self, requests: Sequence[Request], *, sampling: Sampling) -> list[Completion]:
        """One completion per request, in request order.

        Raises:
            ScriptedFailure: this call was to fail. ConfigError: a prompt without a text.
        """
        assert not self._paused, "generate called while weights are being loaded"
        if any(request.pattern for request in requests):
            fix = "use transformers_engine, or a sampler that is not constrained"
            raise ConfigError(
                "engine.name", "scripted_engine plays texts as they are, whatever pattern is asked", fix=fix
            )
        self._calls += 1
        if self._calls in self._cfg.fail_calls:
            raise ScriptedFailure(f"call {self._calls} of generate was to fail")
        return [self._completion(request, sampling) for request in requests]

    def _completion(self, request: Request, sampling: Sampling) -> Completion:
        budget = min(sampling.max_tokens, self._context - len(request.prompt_tokens))
        if budget < 1:
            tokens, stop = [], StopReason.ABORTED
        else:
            tokens, stop = self._played(self._text(request), budget, sampling.stop)
        text = self._decoded(tokens)
        for string in sampling.stop:
            text = text.split(string, 1)[0]
        rng = random.Random(request.seed)
        return Completion(
            request_id=request.id,
            tokens=tuple(tokens),
            logprobs=tuple(math.log(rng.uniform(0.05, 0.95)) for _ in tokens),
            text=text,
            stop=stop,
            policy_version=self._version,
        )

    def _text(self, request: Request) -> str:
        prompt_id, index = _place(request.id)
        prompt = self._tokenizer.decode(list(request.prompt_tokens))
        assert isinstance(prompt, str)
        named = [key for key in self._cfg.completions if key == prompt_id] or [
            key for key in self._cfg.completions if key in prompt
        ]
        texts = self._cfg.completions[named[0]] if named else self._cfg.default
        if not texts:
            fix = "name it in engine.completions, or give engine.default"
            raise ConfigError("engine.completions", f"there is no text for prompt '{prompt_id}': {prompt!r}", fix=fix)
        return texts[index % len(texts)]

    def _played(self, text: str, budget: int, stop: Sequence[str]) -> tuple[list[int], StopReason]:
        eos = self._tokenizer.eos_token_id
        assert isinstance(eos, int)
        tokens = [*self._tokenizer.encode(text, add_special_tokens=False), eos]
        for count in range(1, min(budget, len(tokens)) + 1):
            if tokens[count - 1] == eos:
                return tokens[:count], StopReason.EOS
            if any(string in self._decoded(tokens[:count]) for string in stop):
                return tokens[:count], StopReason.STOP_STRING
        return tokens[:budget], StopReason.LENGTH

    def _decoded(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        assert isinstance(text, str)
        return text


def _place(name: str) -> tuple[str, int]:
    """Prompt id and place in the group of a request named by `trajectory_id`, or of one of a search: its n-th further
    request for an answer, `~n`, stands n places behind, and one that goes on from another at the same place."""
    found = _NAME.fullmatch(name)
    assert found is not None, name
    return found["prompt"], int(found["index"]) + int(found["further"] or 0)
