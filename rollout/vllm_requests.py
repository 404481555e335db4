"""Requests in vLLM's words, and its answers in ours. Used by `rollout.vllm_sampler`.

What differs between the two: vLLM has one set of parameters per request, knows ends of text by their tokens, and takes
a temperature below 0.01 for 0.01. A greedy sample's log-probs are those of all tokens at temperature 1: vLLM applies
neither top-k nor top-p where it does not draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from rlhf.core.errors import ConfigError
from rlhf.core.sampling import Sampling
from rlhf.core.types import Completion, Request, StopReason

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput

COLDEST = 0.01
"""Temperatures below it, other than 0, are not vLLM's."""


GRAMMARS = ("xgrammar", "llguidance", "outlines_core")
"""What vLLM holds answers to a pattern with, one of them."""


class Job:
    """The requests of one `generate` call, and their completions as they come.

    Raises:
        ConfigError: a temperature that vLLM does not have, or a pattern with nothing installed for it.
    """

    def __init__(self, requests: Sequence[Request], sampling: Sampling) -> None:
        if 0 < sampling.temperature < COLDEST:
            problem = f"vLLM takes {sampling.temperature} for {COLDEST}"
            raise ConfigError("sampling.temperature", problem, fix=f"use {COLDEST} or more, or 0 for greedy samples")
        if any(request.pattern for request in requests) and not any(map(find_spec, GRAMMARS)):
            fix = f"pip install xgrammar (or one of {', '.join(GRAMMARS[1:])}), or use engine.name=transformers_engine"
            raise ConfigError("engine.name", "vLLM has nothing installed that holds answers to a pattern", fix=fix)
        self.requests, self.sampling = list(requests), sampling
        self.done: Future[list[Completion]] = Future()
        self._completions: dict[int, Completion] = {}

    def put(self, index: int, completion: Completion) -> None:
        """Take the completion of a request; with the last one, all are given to who waits."""
        self._completions[index] = completion
        if len(self._completions) == len(self.requests):
            self.done.set_result([self._completions[i] for i in range(len(self.requests))])

    def fail(self, error: BaseException) -> None:
        """Tell who waits that there will be no completions."""
        if not self.done.done():
            self.done.set_exception(error)


def parameters(request: Request, sampling: Sampling, *, context: int, ends: Sequence[int]) -> SamplingParams:
    """What vLLM is told of a request.

    Args:
        context: tokens of a sequence, at most.
        ends: tokens that end a text.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=request.seed % 2**63,
        max_tokens=min(sampling.max_tokens, context - len(request.prompt_tokens)),
        stop=list(sampling.stop),
        stop_token_ids=list(ends),
        ignore_eos=True,
        logprobs=0,
        flat_logprobs=True,
        # Needed for stop strings only: the text is decoded once, at the end.
        detokenize=bool(sampling.stop),
        output_kind=RequestOutputKind.FINAL_ONLY,
        structured_outputs=StructuredOutputsParams(regex=request.pattern) if request.pattern else None,
        skip_clone=True,
    )


def completion(
    request: Request,
    sampling: Sampling,
    output: CompletionOutput,
    *,
    tokenizer: PreTrainedTokenizerBase,
    ends: Sequence[int],
) -> Completion:
    """What a finished request gives."""
    from vllm.logprobs import FlatLogprobs

    assert isinstance(output.logprobs, FlatLogprobs) and output.weight_versions is not None
    tokens = tuple(output.token_ids)
    logprobs = tuple(output.logprobs.logprobs[start] for start in output.logprobs.start_indices)
    versions = [int(span.version) for span in output.weight_versions for _ in range(span.start, span.end)]
    return Completion(
        request_id=request.id,
        tokens=tokens,
        logprobs=logprobs,
        text=text(tokens, sampling, tokenizer),
        stop=_stop(output, ends),
        policy_version=versions[0],
        versions=tuple(versions) if len(set(versions)) > 1 else (),
    )


def aborted(request: Request, *, version: int) -> Completion:
    """Of a request whose prompt leaves no room for an answer."""
    return Completion(
        request_id=request.id, tokens=(), logprobs=(), text="", stop=StopReason.ABORTED, policy_version=version
    )


def text(tokens: Sequence[int], sampling: Sampling, tokenizer: PreTrainedTokenizerBase) -> str:
    """Decoded without special tokens, cut before a stop string."""
    decoded = tokenizer.decode(list(tokens), skip_special_tokens=True)
    assert isinstance(decoded, str)
    for stop in sampling.stop:
        decoded = decoded.split(stop, 1)[0]
    return decoded


def _stop(output: CompletionOutput, ends: Sequence[int]) -> StopReason:
    if output.finish_reason == "length":
        return StopReason.LENGTH
    assert output.finish_reason == "stop", output.finish_reason
    if isinstance(output.stop_reason, str):
        return StopReason.STOP_STRING
    assert output.token_ids[-1] in ends
    return StopReason.EOS
