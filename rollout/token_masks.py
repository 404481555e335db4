"""Which tokens may follow, so that a text matches a pattern in the end. Used by the embedded engine.

A token may follow if reading its characters leaves a state from which the pattern can still be matched; a token that
ends the answer may where it is matched already. Source: LMQL (Beurer-Kellner et al. 2022, arXiv 2212.06094), whose
follow maps these masks are, and Willard and Louf 2023 (arXiv 2307.09702), who keep them by state. The tokens lie in a
trie, so that what begins alike is read once; a mask is kept for every state that was met. Special tokens, and pieces of
characters that are several tokens, never follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf.core.errors import ConfigError
from rollout.patterns import Expression, parse

_BROKEN = "\ufffd"
"""What a piece of a character decodes to."""


@dataclass(slots=True)
class _Branch:
    """Tokens that begin with the same characters."""

    ends: list[int] = field(default_factory=list[int])
    """Those that consist of nothing more."""
    longer: dict[str, _Branch] = field(default_factory=dict[str, "_Branch"])


class TokenMasks:
    """Masks of one tokenizer.

    Args:
        tokenizer: whose tokens they are.
        ends: tokens that end an answer.
        device: where masks are wanted.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, ends: Sequence[int], device: torch.device) -> None:
        self._ends, self._device = list(ends), device
        self._texts = _texts(tokenizer)
        self._root = _Branch()
        for token, text in self._texts.items():
            branch = self._root
            for character in text:
                branch = branch.longer.setdefault(character, _Branch())
            branch.ends.append(token)
        self._kept: dict[tuple[Expression, int], Tensor] = {}

    def hold(self, pattern: str) -> Hold:
        """A new answer that has to match a pattern."""
        return Hold(self, parse(pattern), pattern)

    def mask(self, state: Expression, width: int) -> Tensor:
        """[width] True for the tokens that may follow."""
        if (state, width) not in self._kept:
            mask = torch.zeros(width, dtype=torch.bool)
            mask[[*_following(self._root, state), *(self._ends if state.nullable else [])]] = True
            self._kept[state, width] = mask.to(self._device)
        return self._kept[state, width]

    def after(self, state: Expression, token: int) -> Expression | None:
        """The state behind a token; None behind one that ends the answer."""
        if token in self._ends:
            return None
        for character in self._texts[token]:
            state = state.after(character)
        return state


@dataclass(slots=True)
class Hold:
    """An answer on its way."""

    masks: TokenMasks
    state: Expression | None
    """None where it has ended."""
    pattern: str

    def narrowed(self, logits_V: Tensor) -> Tensor:
        """Logits with -inf for all that may not follow.

        Raises:
            ConfigError: no token may.
        """
        if self.state is None:
            return logits_V
        mask = self.masks.mask(self.state, logits_V.shape[-1])
        if not mask.any():
            fix = "use characters that the tokenizer knows as tokens"
            raise ConfigError("pattern", f"no token of this model leads on to a match of {self.pattern!r}", fix=fix)
        return logits_V.masked_fill(~mask, float("-inf"))

    def take(self, token: int) -> None:
        """Go on by a token."""
        if self.state is not None:
            self.state = self.masks.after(self.state, token)


def _following(branch: _Branch, state: Expression) -> Iterator[int]:
    yield from branch.ends
    for character, longer in branch.longer.items():
        behind = state.after(character)
        if not behind.dead:
            yield from _following(longer, behind)


def _texts(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """What each token adds to a text; a first token may lack a space, so that none is decoded as one."""
    [first] = tokenizer.encode("0", add_special_tokens=False)[-1:]
    special = set(tokenizer.all_special_ids)
    tokens = [token for token in range(len(tokenizer)) if token not in special]
    before = str(tokenizer.decode([first]))
    decoded = tokenizer.batch_decode([[first, token] for token in tokens])
    added = {token: text[len(before) :] for token, text in zip(tokens, decoded, strict=True)}
    return {token: text for token, text in added.items() if text and _BROKEN not in text}
