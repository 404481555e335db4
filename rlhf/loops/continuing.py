"""Samples from the middle of answers, and to other questions: what a builder of the generate loop asks for.

An answer goes on from the tokens that were sampled, never from a text that is tokenized again. Each completion may be
as long as a whole answer, and is graded by the first reward alone: others may cost much. Seeds follow from names, so
that a stage that was killed samples the same again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.core.seeding import derive_seed
from rlhf.core.types import Completion, Group, Prompt, Request, Start, StopReason, Trajectory
from rlhf.data.ends import token_ends
from rlhf.data.render import render_prompt
from rlhf.loops.stage import Stage


@dataclass(frozen=True, slots=True)
class StageContinuer:
    """Implements `Continuer` with the engine and the grader of a stage."""

    stage: Stage

    async def go_on(self, starts: Sequence[Start], *, count: int) -> list[Group]:
        """See `Continuer.go_on`."""
        if not starts:
            return []
        stage = self.stage
        kept = [_kept(start, stage) for start in starts]
        requests = [
            Request(
                id=f"{start.name}.{index}",
                prompt_tokens=(*start.trajectory.prompt_tokens, *start.trajectory.tokens[:size]),
                seed=derive_seed(stage.seed, "sample", f"{start.name}.{index}"),
            )
            for start, (size, _) in zip(starts, kept, strict=True)
            for index in range(count)
        ]
        completions = await self._sampled(requests)
        groups = [
            Group(
                prompt=start.prompt,
                trajectories=tuple(
                    _whole(start, kept[n], requests[n * count + i], completions[n * count + i], i) for i in range(count)
                ),
            )
            for n, start in enumerate(starts)
        ]
        with stage.phase("reward"):
            return await stage.grader.verdicts(groups)

    async def ask(self, prompts: Sequence[Prompt], *, begin: str) -> list[str]:
        """See `Continuer.ask`."""
        if not prompts:
            return []
        begun = tuple(self.stage.tokenizer.encode(begin, add_special_tokens=False))
        requests = [
            Request(
                id=prompt.id,
                prompt_tokens=(*render_prompt(self.stage.tokenizer, prompt), *begun),
                seed=derive_seed(self.stage.seed, "sample", prompt.id),
            )
            for prompt in prompts
        ]
        return [completion.text for completion in await self._sampled(requests)]

    async def _sampled(self, requests: Sequence[Request]) -> list[Completion]:
        stage = self.stage
        with stage.phase("gen"):
            completions = await stage.engine.generate(requests, sampling=stage.sampling)
        tokens = sum(len(completion.tokens) for completion in completions)
        stage.progress.tokens += tokens
        stage.recorder.count_tokens(tokens)
        return completions


def _kept(start: Start, stage: Stage) -> tuple[int, int]:
    """Tokens and characters of an answer to keep; never the EOS token."""
    answer = start.trajectory
    ends = token_ends(stage.tokenizer, answer.tokens, answer.text)
    most = len(answer.tokens) - (answer.stop is StopReason.EOS)
    size = min(bisect_left(ends, start.characters) + 1, most)
    return size, ends[size - 1] if size else 0


def _whole(start: Start, kept: tuple[int, int], request: Request, completion: Completion, index: int) -> Trajectory:
    """The kept beginning and its completion as one answer."""
    answer, (size, characters) = start.trajectory, kept
    return Trajectory(
        id=request.id,
        prompt_id=answer.prompt_id,
        index=index,
        prompt_tokens=answer.prompt_tokens,
        tokens=(*answer.tokens[:size], *completion.tokens),
        logprobs=(*answer.logprobs[:size], *completion.logprobs),
        text=answer.text[:characters] + completion.text,
        stop=completion.stop,
        policy_version=completion.policy_version,
        seed=request.seed,
    )
