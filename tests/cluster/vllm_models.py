"""Small models that vLLM's CPU build can serve, engines for them, and what the trainer says of what they sampled."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny_model
import torch

from rlhf.core.protocols import EngineSpec
from rlhf.core.sampling import Sampling, Transforms
from rlhf.core.training import Sample
from rlhf.core.types import Completion, Request
from rlhf.data.packing import pack
from rlhf.models.forward import ForwardSpec, forward, use_packed
from rollout import vllm_engine
from rollout.vllm_engine import VllmEngine

CONTEXT = 512
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 32, "tie_word_embeddings": True, "max_position_embeddings": CONTEXT},
    "qwen3": {"head_dim": 32, "max_position_embeddings": CONTEXT},
    "gpt2": {"n_embd": 128, "n_positions": CONTEXT},
}
"""vLLM's kernels want heads of 32 or more. Llama and GPT-2 have tied heads, Qwen3 has not."""
WIDE = {"intermediate_size": 8192}
"""Some weights of a Llama are larger than half of a bucket of 1 MiB."""
SHAPED = Sampling(temperature=0.7, top_k=8, top_p=0.9, max_tokens=16)
WAIT_S = 120
PROMPTS = [tiny_model.ids(text) for text in ("3+5=", "12+4+9=", "#", "a0b1c2d3e4f5=")]


class Steps:
    """Tells when the engine has made some steps, so that a test can act in the middle of an answer."""

    def __init__(self, made: VllmEngine) -> None:
        self._count = 0
        self._passed = threading.Condition()
        made._loop.call(self._watch)

    @property
    def count(self) -> int:
        with self._passed:
            return self._count

    def wait_for(self, count: int) -> None:
        with self._passed:
            assert self._passed.wait_for(lambda: self._count >= count, WAIT_S)

    def _watch(self, sampler: Any) -> None:
        step = type(sampler).step

        def counted() -> None:
            step(sampler)
            with self._passed:
                self._count += 1
                self._passed.notify_all()

        sampler.step = counted


def model(family: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
    """A model for which every eighth token ends an answer, so that samples end at many different times."""
    made = tiny_model.model(family, seed=seed, **(SHAPES[family] | changes))
    made.generation_config.eos_token_id = list(range(tiny_model.EOS_ID, tiny_model.VOCAB, 8))
    return made


def folder(made: Any, path: Path) -> Path:
    """A model with its tokenizer in a folder."""
    made.save_pretrained(path)
    tiny_model.tokenizer().save_pretrained(path)
    return path


def spec(path: Path, *, dtype: str = "auto", device: str = "cpu") -> EngineSpec:
    """As a runtime makes it; vLLM reads the folder itself."""

    def load(path: str = "") -> Any:
        raise AssertionError("vLLM reads the folder itself")

    return EngineSpec(path=path, dtype=dtype, device=device, trust_remote_code=False, load=load, open=load)


def engine(path: Path, **settings: Any) -> VllmEngine:
    """An engine with little memory."""
    return vllm_engine.build(vllm_engine.Config(**({"kv_cache_gib": 0.1} | settings)), spec(path))


def requests(prompts: Sequence[tuple[int, ...]] = PROMPTS, *, group: int = 4, first: int = 0) -> list[Request]:
    """Some per prompt, with seeds of their own."""
    return [
        Request(id=f"{p}-{i}", prompt_tokens=prompt, seed=1000 * p + i + first)
        for p, prompt in enumerate(prompts)
        for i in range(group)
    ]


def logprobs(made: Any, request: Request, done: Completion, transforms: Transforms) -> torch.Tensor:
    """[tokens] what the trainer says of a completion."""
    sample = Sample(id=request.id, tokens=request.prompt_tokens + done.tokens, target_start=len(request.prompt_tokens))
    [batch] = pack([sample], token_budget=CONTEXT)
    settings = ForwardSpec(transforms=transforms, chunk_mib=0, entropy_gradient=False)
    with torch.no_grad():
        return forward(made, batch, settings).logprobs_T


def trainer(made: Any) -> Any:
    """The model as a learner computes with it."""
    use_packed(made, where="model")
    return made


def gap(made: Any, asked: Sequence[Request], done: Sequence[Completion], transforms: Transforms) -> float:
    """The largest difference between the log-probs of engine and trainer."""
    gaps = [
        (logprobs(made, request, completion, transforms) - torch.tensor(completion.logprobs)).abs().max().item()
        for request, completion in zip(asked, done, strict=True)
        if completion.tokens
    ]
    assert gaps
    return max(gaps)
