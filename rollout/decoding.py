"""The samples of one decoding round: drawing tokens, noticing ends, retiring rows. Used by `transformers_engine`.

A row's uniform numbers come from a generator keyed by the request's seed, and a token is the inverse of the cumulative
distribution at one of them: what a row draws does not depend on which other rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlhf.core.sampling import Sampling, transform
from rlhf.core.types import Request, StopReason
from rollout.token_masks import Hold

_STOPS = (StopReason.EOS, StopReason.STOP_STRING, StopReason.LENGTH)
_LIVE = -1


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished sample: `index` is its place in the round's requests."""

    index: int
    tokens: list[int]
    logprobs: list[float]
    stop: StopReason


class Rows:
    """Row tensors of a round, [R, …], in the order of the key/value cache.

    Args:
        requests: one per row.
        prompt_mask: [R, columns] True where the left-padded prompt has a token.
        context: positions the model has; a row's budget ends with them.
        sampling: transforms, budget and stop strings of all rows.
        holds: what keeps a row to its pattern, for each row; none where no row has one.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        *,
        prompt_mask: Tensor,
        context: int,
        sampling: Sampling,
        holds: Sequence[Hold | None] = (),
    ) -> None:
        device, size, budget = prompt_mask.device, len(requests), sampling.max_tokens
        self._sampling, self._context, self._holds = sampling, context, list(holds)
        self._index = torch.arange(size)
        self._tokens = torch.zeros((size, budget), dtype=torch.long, device=device)
        self._logprobs = torch.zeros((size, budget), device=device)
        self._stop = torch.full((size,), _LIVE, device=device)
        self._count = torch.zeros(size, dtype=torch.long, device=device)
        self._uniform = _uniform(requests, budget).to(device)
        self._prompt_length = prompt_mask.sum(dim=1)
        self._budget = (context - self._prompt_length).clamp(max=budget)
        self.mask = torch.cat([prompt_mask, prompt_mask.new_ones((size, budget))], dim=1)
        """[R, columns + max_tokens] True where a cache column holds a token of the row."""

    def __len__(self) -> int:
        return len(self._index)

    def draw(self, logits_RV: Tensor, column: int, eos: Tensor) -> Tensor:
        """Sample token `column` of every row and note which rows end with it. Returns the tokens, [R]."""
        logprobs_RV = transform(self._held(logits_RV.float()), self._sampling).log_softmax(dim=-1)
        if self._sampling.greedy:
            token = logprobs_RV.argmax(dim=-1)
        else:
            cumulative = logprobs_RV.exp().double().cumsum(dim=-1)
            target = self._uniform[:, column, None] * cumulative[:, -1:]
            token = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=logits_RV.shape[-1] - 1)
        self._tokens[:, column] = token
        self._logprobs[:, column] = logprobs_RV.gather(1, token[:, None]).squeeze(1)
        self._end(torch.isin(token, eos), column, StopReason.EOS)
        for hold, drawn in zip(self._holds, token.tolist() if self._holds else [], strict=True):
            if hold is not None:
                hold.take(drawn)
        return token

    def end_spent(self, column: int) -> None:
        """End the rows whose token budget is used up."""
        self._end(self._budget <= column + 1, column, StopReason.LENGTH)

    def end_stopped(self, hit: Tensor, column: int) -> None:
        """End the rows ([R] bool) whose text contains a stop string."""
        self._end(hit, column, StopReason.STOP_STRING)

    def recent(self, column: int, width: int) -> Tensor:
        """[R, <=width] the newest tokens, for the search for stop strings."""
        return self._tokens[:, max(0, column + 1 - width) : column + 1]

    def positions(self, column: int) -> Tensor:
        """[R, 1] position of the token drawn at `column`."""
        # A row that is spent but not yet retired is decoded on; its positions must stay within the model's table.
        return (self._prompt_length + column).clamp(max=self._context - 1)[:, None]

    def num_ended(self) -> int:
        return int((self._stop != _LIVE).sum())

    def retire(self) -> tuple[list[Ended], Tensor]:
        """Take the finished rows out. Returns them, and the indices of the rows that stay."""
        gone = (self._stop != _LIVE).nonzero().squeeze(1)
        ended = list(self._ended(gone))
        stay = (self._stop == _LIVE).nonzero().squeeze(1)
        self._index = self._index[stay.cpu()]
        self._tokens, self._logprobs = self._tokens[stay], self._logprobs[stay]
        self._stop, self._count = self._stop[stay], self._count[stay]
        self._uniform, self._budget = self._uniform[stay], self._budget[stay]
        self._prompt_length, self.mask = self._prompt_length[stay], self.mask[stay]
        self._holds = [self._holds[row] for row in stay.tolist()] if self._holds else []
        return ended, stay

    def _held(self, logits_RV: Tensor) -> Tensor:
        if not self._holds:
            return logits_RV
        rows = zip(self._holds, logits_RV, strict=True)
        return torch.stack([logits_V if hold is None else hold.narrowed(logits_V) for hold, logits_V in rows])

    def _end(self, hit: Tensor, column: int, reason: StopReason) -> None:
        first = hit & (self._stop == _LIVE)
        self._stop.masked_fill_(first, _STOPS.index(reason))
        self._count.masked_fill_(first, column + 1)

    def _ended(self, rows: Tensor) -> Iterator[Ended]:
        columns = (
            self._index[rows.cpu()],
            self._count[rows],
            self._stop[rows],
            self._tokens[rows],
            self._logprobs[rows],
        )
        for index, count, stop, tokens, logprobs in zip(*(c.tolist() for c in columns), strict=True):
            yield Ended(index, tokens[:count], logprobs[:count], _STOPS[stop])


def _uniform(requests: Sequence[Request], count: int) -> Tensor:
    """[R, count] float64 in [0, 1): each row from its own counter-based generator."""
    rows = [np.random.Generator(np.random.Philox(key=r.seed)).random(count) for r in requests]
    return torch.from_numpy(np.stack(rows))
