"""Samples from the middle of answers and to other questions, how likely and how right given answers are, and rows of
other datasets: what a builder of the generate loop asks for.

An answer goes on from the tokens that were sampled, never from a text that is tokenized again. Each completion may be
as long as a whole answer, and is graded by the first reward alone: others may cost much. Seeds follow from names, so
that a stage that was killed samples the same again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlhf.core.modules import Execution
from rlhf.core.run_folder import read_lines
from rlhf.core.seeding import content_key, derive_seed
from rlhf.core.training import Sample
from rlhf.core.types import Completion, Group, Prompt, Request, RewardOut, Start, StopReason, Trajectory
from rlhf.data import sources, turns
from rlhf.data.ends import token_ends
from rlhf.data.packing import pack
from rlhf.data.render import eos_id, render_prompt, render_solution
from rlhf.loops import executing
from rlhf.loops.stage import Stage

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StageContinuer:
    """Implements `Continuer` with the engine and the grader of a stage."""

    stage: Stage
    micro_batch_tokens: int = 8192
    """Tokens of one forward pass over given answers."""
    _read: dict[str, Mapping[str, Sequence[Row]]] = field(default_factory=dict[str, Mapping[str, "Sequence[Row]"]])

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

    def begun(self, prompt: Prompt, text: str, *, name: str) -> Start:
        """See `Continuer.begun`."""
        return Start(name=name, prompt=prompt, trajectory=self._given(prompt, text), characters=len(text))

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

    async def logprobs(self, answers: Sequence[tuple[Prompt, str]]) -> list[tuple[float, ...]]:
        """See `Continuer.logprobs`."""
        model, tokenizer = self.stage.trained, self.stage.tokenizer
        assert model is not None, "the stage has started"
        rendered = [render_solution(tokenizer, replace(prompt, solution=text)) for prompt, text in answers]
        samples = [
            Sample(id=str(n), tokens=one.tokens, target_start=one.target_start) for n, one in enumerate(rendered)
        ]
        batches = pack(samples, token_budget=self.micro_batch_tokens, multiple=model.ranks) if samples else []
        found: dict[int, tuple[float, ...]] = {}
        with self.stage.phase("logprobs"):
            for batch, logprobs_T in zip(batches, await model.logprobs(batches), strict=True):
                parts = logprobs_T.split([int(size) for size in batch.target_counts_S.tolist()])
                found |= {int(name): tuple(part.tolist()) for name, part in zip(batch.ids, parts, strict=True)}
        return [found[n] for n in range(len(samples))]

    async def graded(self, answers: Sequence[tuple[Prompt, str]]) -> list[RewardOut]:
        """See `Continuer.graded`."""
        if not answers:
            return []
        groups = [Group(prompt=prompt, trajectories=(self._given(prompt, text),)) for prompt, text in answers]
        with self.stage.phase("reward"):
            return [group.rewards[0] for group in await self.stage.grader.verdicts(groups)]

    def _given(self, prompt: Prompt, text: str) -> Trajectory:
        """An answer that this stage did not sample."""
        tokens = (*self.stage.tokenizer.encode(text, add_special_tokens=False), eos_id(self.stage.tokenizer))
        return Trajectory(
            id=f"{prompt.id}~given",
            prompt_id=prompt.id,
            index=0,
            prompt_tokens=render_prompt(self.stage.tokenizer, prompt),
            tokens=tokens,
            logprobs=(0.0,) * len(tokens),
            text=text,
            stop=StopReason.EOS,
            policy_version=self.stage.progress.version,
            seed=0,
        )

    async def execute(self, answers: Sequence[str], *, seconds: float) -> list[Execution]:
        """See `Continuer.execute`."""
        with self.stage.phase("execute"):
            return await executing.execute(answers, seconds=seconds)

    def rows(self, source: str, *, where: str) -> Mapping[str, Sequence[Row]]:
        """See `Continuer.rows`."""
        if source not in self._read:
            generated = self.stage.folder.data / f"{source}.jsonl"
            where = f"{self.stage.name}.{where}"
            found = read_lines(generated) if generated.exists() else sources.rows(source, split="train", where=where)
            self._read[source] = _by_question(found, where=f"{where} ({source})")
        return self._read[source]

    async def _sampled(self, requests: Sequence[Request]) -> list[Completion]:
        stage = self.stage
        with stage.phase("gen"):
            completions = await stage.engine.generate(requests, sampling=stage.sampling)
        tokens = sum(len(completion.tokens) for completion in completions)
        stage.progress.tokens += tokens
        stage.recorder.count_tokens(tokens)
        return completions


def _by_question(rows: Iterable[Row], *, where: str) -> dict[str, list[Row]]:
    """Rows by what they say is the key of their question, or by that of the question in them."""
    found: dict[str, list[Row]] = {}
    for number, row in enumerate(rows, start=1):
        key = row.get("content")
        if not isinstance(key, str):
            messages = turns.question(row, f"{where}, row {number}")
            key = content_key(Prompt(id="", messages=messages, gold=str(row.get("gold", "")), task=""))
        found.setdefault(key, []).append(row)
    return found


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
