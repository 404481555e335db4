"""Answers that are searched for: prompts to groups by way of a sampler, with what each answer has cost.

Used by every loop that samples. With the sampler `single` the groups are those of `rollouts.sample_indices`. A
search is named like the sample that it finds, `trajectory_id(…, index)`; so is its first request for an answer, further
ones `~1`, `~2`, …, and what goes on from a draft its name with `.0`, `.1`, …. Seeds are hashes of names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from random import Random
from typing import cast

from transformers import PreTrainedTokenizerBase

from rlhf.core.component import Component
from rlhf.core.modules import SamplerModule
from rlhf.core.protocols import EngineHandle, Grader
from rlhf.core.sampling import Sampling
from rlhf.core.search import Cost, Draft, Scored
from rlhf.core.seeding import derive_seed, trajectory_id
from rlhf.core.types import Completion, Group, Message, Prompt, Request, RewardOut, StopReason, Trajectory
from rlhf.data.render import render_prompt
from rlhf.loops.meeting import Meeting

_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?|[+-]?\d+/\d+")
_LONGEST_NUMBER = 64
"""Characters of an answer that is read as a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """Groups of answers, and what each answer has cost."""

    groups: list[Group]
    """One per prompt, in order, not yet scored."""
    costs_PG: list[list[Cost]]

    @property
    def cost(self) -> Cost:
        """Of all."""
        return sum((cost for costs in self.costs_PG for cost in costs), Cost())


async def search_groups(
    engine: EngineHandle,
    grader: Grader,
    prompts: Sequence[Prompt],
    indices: Sequence[range],
    *,
    sampler: Component,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    seed: int,
    step: int,
) -> Searched:
    """Search for the answers of each prompt that have these indices, each for itself.

    Args:
        grader: reads and scores drafts for the sampler.
        indices: per prompt, 0-based.
        sampler: of `rollout.samplers`.
        seed: of the run.
        step: global step, part of every sample's name.
    """
    meeting = Meeting(engine, grader)
    places = [(prompt, index) for prompt, own in zip(prompts, indices, strict=True) for index in own]
    desks = [
        Desk(
            prompt=prompt,
            name=trajectory_id(seed, step, prompt.id, index),
            sampling=sampling,
            tokenizer=tokenizer,
            meeting=meeting,
            seed=seed,
        )
        for prompt, index in places
    ]
    module = cast(SamplerModule, sampler.module)
    found = await meeting.run([module.search(desk, sampler.config) for desk in desks])
    ended = zip(desks, found, places, strict=True)
    answers = iter([(desk.trajectory(draft, index), desk.cost) for desk, draft, (_, index) in ended])
    taken = [list(islice(answers, len(own))) for own in indices]
    return Searched(
        groups=[
            Group(prompt=prompt, trajectories=tuple(trajectory for trajectory, _ in own))
            for prompt, own in zip(prompts, taken, strict=True)
        ],
        costs_PG=[[cost for _, cost in own] for own in taken],
    )


@dataclass(slots=True, kw_only=True)
class Desk:
    """Implements `SearchTools`: one search."""

    prompt: Prompt
    name: str
    """Of the answer that is searched for."""
    sampling: Sampling
    tokenizer: PreTrainedTokenizerBase
    meeting: Meeting
    seed: int
    """Of the run."""
    cost: Cost = field(default_factory=Cost)
    root: Draft = field(init=False)
    rng: Random = field(init=False)
    _children: Counter[str] = field(init=False, default_factory=Counter[str])
    """Drafts that have gone on from each."""

    def __post_init__(self) -> None:
        self.root = Draft(name=f"{self.name}^", prompt_tokens=render_prompt(self.tokenizer, self.prompt))
        self.rng = Random(derive_seed(self.seed, "search", self.name))

    def begin(self, messages: Sequence[Message]) -> Draft:
        """See `SearchTools.begin`."""
        self._children["?"] += 1
        asked = replace(self.prompt, messages=tuple(messages))
        name = f"{self.name}?{self._children['?']}"
        return Draft(name=name, prompt_tokens=render_prompt(self.tokenizer, asked))

    def put(self, draft: Draft, text: str) -> Draft:
        """See `SearchTools.put`."""
        kept = len(draft.tokens) - (draft.stop is StopReason.EOS)
        added = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        tokens = (*draft.tokens[:kept], *added)
        spent = len(tokens) >= self.sampling.max_tokens
        return replace(
            draft,
            name=self._child(draft, "+"),
            tokens=tokens,
            logprobs=(*draft.logprobs[:kept], *[0.0] * len(added)),
            text=self._text(tokens),
            stop=StopReason.LENGTH if spent else None,
            versions=(*draft.versions[:kept], *[draft.policy_version] * len(added)) if draft.versions else (),
            sampled=(*_sampled(draft)[:kept], *[False] * len(added)),
        )

    async def extend(
        self, drafts: Sequence[Draft], *, count: int = 1, sampling: Sampling | None = None, pattern: str = ""
    ) -> list[list[Draft]]:
        """See `SearchTools.extend`."""
        asked = [draft for draft in drafts if not draft.done]
        if not asked:
            return [[draft] for draft in drafts]
        assert len({draft.name for draft in asked}) == len(asked), "a draft that is asked for twice"
        pairs = [(draft, self._request(draft, pattern)) for draft in asked for _ in range(count)]
        wanted = [self._wanted(draft, sampling) for draft, _ in pairs]
        completions = await self.meeting.generate([request for _, request in pairs], wanted)
        longer = [
            self._longer(draft, request, completion, own)
            for (draft, request), completion, own in zip(pairs, completions, wanted, strict=True)
        ]
        found = {draft.name: longer[i * count : (i + 1) * count] for i, draft in enumerate(asked)}
        return [[draft] if draft.done else found[draft.name] for draft in drafts]

    async def score(self, drafts: Sequence[Draft], *, scorer: str) -> list[Scored]:
        """See `SearchTools.score`."""
        rewards = await self._shown(drafts, with_scores=True)
        values = [reward.breakdown.get(scorer) if scorer else reward.value for reward in rewards]
        self.cost += Cost(unscored=sum(value is None for value in values))
        return [
            Scored(value=value, answer=spelt(reward.extracted)) for value, reward in zip(values, rewards, strict=True)
        ]

    async def answers(self, drafts: Sequence[Draft]) -> list[str | None]:
        """See `SearchTools.answers`."""
        return [spelt(reward.extracted) for reward in await self._shown(drafts, with_scores=False)]

    def trajectory(self, draft: Draft, index: int) -> Trajectory:
        """A draft as an answer to the prompt, under the name of the search."""
        return Trajectory(
            id=self.name,
            prompt_id=self.prompt.id,
            index=index,
            prompt_tokens=draft.prompt_tokens,
            tokens=draft.tokens,
            logprobs=draft.logprobs,
            text=draft.text,
            stop=draft.stop or StopReason.LENGTH,
            policy_version=draft.policy_version,
            versions=draft.versions,
            sampled=draft.sampled,
            seed=draft.seed,
        )

    async def _shown(self, drafts: Sequence[Draft], *, with_scores: bool) -> Sequence[RewardOut]:
        if not drafts:
            return []
        shown = (replace(self.trajectory(draft, i), id=draft.name) for i, draft in enumerate(drafts))
        group = Group(prompt=self.prompt, trajectories=tuple(shown))
        if with_scores:
            question = len(self.root.prompt_tokens)
            self.cost += Cost(scored=len(drafts), scored_tokens=sum(question + len(d.tokens) for d in drafts))
            graded = await self.meeting.grade(group)
        else:
            graded = await self.meeting.verdicts(group)
        return graded.rewards

    def _wanted(self, draft: Draft, sampling: Sampling | None) -> Sampling:
        """How a draft is gone on with: no further than there is room."""
        own = self.sampling
        asked = own if sampling is None else replace(sampling, stop=list(dict.fromkeys([*own.stop, *sampling.stop])))
        return replace(asked, max_tokens=min(asked.max_tokens, own.max_tokens - len(draft.tokens)))

    def _child(self, draft: Draft, mark: str) -> str:
        number = self._children[draft.name + mark]
        self._children[draft.name + mark] += 1
        if draft.name == self.root.name and mark == ".":
            return f"{self.name}~{number}" if number else self.name
        return f"{draft.name}{mark}{number}"

    def _request(self, draft: Draft, pattern: str) -> Request:
        name = self._child(draft, ".")
        tokens = (*draft.prompt_tokens, *draft.tokens)
        seed = derive_seed(self.seed, "sample", name)
        return Request(id=name, prompt_tokens=tokens, seed=seed, pattern=pattern)

    def _longer(self, draft: Draft, request: Request, completion: Completion, sampling: Sampling) -> Draft:
        """A draft with a completion behind it, which is paid for here."""
        sampled = len(completion.tokens)
        if completion.stop is StopReason.ABORTED:
            self.cost += Cost(requests=1, aborted=1)
        else:
            self.cost += Cost(requests=1, prompt_tokens=len(request.prompt_tokens), completion_tokens=sampled)
        tokens = (*draft.tokens, *completion.tokens)
        whole = not draft.tokens and sampling.stop == self.sampling.stop
        old = draft.policy_version if draft.tokens else completion.policy_version
        versions = (
            *(draft.versions or (old,) * len(draft.tokens)),
            *(completion.versions or (completion.policy_version,) * sampled),
        )
        return Draft(
            name=request.id,
            prompt_tokens=draft.prompt_tokens,
            tokens=tokens,
            logprobs=(*draft.logprobs, *completion.logprobs),
            text=completion.text if whole else self._text(tokens),
            stop=self._stop(completion, tokens, sampling),
            seed=request.seed,
            policy_version=old,
            versions=versions if len(set(versions)) > 1 else (),
            sampled=(*draft.sampled, *[True] * sampled) if draft.sampled else (),
        )

    def _stop(self, completion: Completion, tokens: Sequence[int], sampling: Sampling) -> StopReason | None:
        """Why nothing can follow."""
        reason = completion.stop
        if reason is StopReason.STOP_STRING and sampling.stop != self.sampling.stop:
            text = self._decoded(tokens)
            return reason if any(string in text for string in self.sampling.stop) else None
        spent = len(tokens) >= self.sampling.max_tokens or len(completion.tokens) < sampling.max_tokens
        return None if reason is StopReason.LENGTH and not spent else reason

    def _text(self, tokens: Sequence[int]) -> str:
        text = self._decoded(tokens)
        for string in self.sampling.stop:
            text = text.split(string, 1)[0]
        return text

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


def _sampled(draft: Draft) -> Sequence[bool]:
    return draft.sampled or [True] * len(draft.tokens)


def spelt(answer: str | None) -> str | None:
    """One spelling for answers that are the same: spaces are one, and `1,000`, `1000.0` and `+1000` are a number."""
    text = " ".join((answer or "").split())
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return text or None
    try:
        return str(Fraction(text.replace(",", "")))
    except ZeroDivisionError:
        return text
