"""Where tokens end in the text: by characters, with characters of several tokens, cut texts and spaces that move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import tiny_model

from rlhf.data.ends import token_ends
from rlhf.models import tokenizers


def test_one_token_per_character_and_nothing_for_eos() -> None:
    tokens = (*tiny_model.ids("1+2=3\nab"), tiny_model.EOS_ID)
    assert token_ends(tiny_model.tokenizer(), tokens, "1+2=3\nab") == (1, 2, 3, 4, 5, 6, 7, 8, 8)


def test_a_text_that_was_cut_ends_there() -> None:
    assert token_ends(tiny_model.tokenizer(), tiny_model.ids("1+2=3"), "1+2") == (1, 2, 3, 3, 3)


@pytest.mark.parametrize("text", ["naïve déjà vu", "漢字 kanji 漢", "a🙂b\n\n🙂", "  two  spaces "])
def test_bytes_make_characters_when_they_are_whole(text: str) -> None:
    tokenizer = tokenizers.train_bpe(["plain words only"], vocab_size=tokenizers.MIN_BPE)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    assert len(tokens) == len(text.encode())
    sizes = [len(text.encode()[: t + 1].decode(errors="ignore")) for t in range(len(tokens))]
    assert token_ends(tokenizer, tokens, text) == tuple(sizes)


class Words:
    """Decodes words with spaces between them, however they are grouped; the last one is capital."""

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        words = ["ab"[token] * 2 for token in tokens]
        return " ".join([*words[:-1], *(word.upper() for word in words[-1:])])


def test_where_pieces_do_not_make_the_text_prefixes_do() -> None:
    tokenizer: Any = Words()
    assert tokenizer.decode([0, 1, 0]) == "aa bb AA"
    assert token_ends(tokenizer, [0, 1, 0], "aa bb AA") == (0, 3, 8)
