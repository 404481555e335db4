"""Tokenizers for models that start from nothing: one token per character, or byte-level BPE.

Called by `rlhf.models.load.prepare`. Both are deterministic in their texts, know the same special tokens and the same
chat template, in which `3+5+9=` becomes `<|user|>3+5+9=<|assistant|>`, and give back exactly the text that they were
given: no spaces are inserted or cleaned up. The character tokenizer reads what it has not seen as `<|unk|>`.
BPE: Sennrich et al. 2016 (arXiv 1508.07909), on bytes as in GPT-2; we split numbers into digits first, so that the
tokens of a number do not depend on its length.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rlhf.core.errors import ConfigError

PAD, EOS, USER, ASSISTANT, SYSTEM, UNK = (
    "<|pad|>",
    "<|eos|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|unk|>",
)
SPECIAL = (PAD, EOS, USER, ASSISTANT, SYSTEM, UNK)
"""Ids 0 to 5 of both tokenizers. EOS ends an assistant's turn."""
MIN_BPE = len(SPECIAL) + 256
"""Special tokens and every byte."""

TURNS = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|eos|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Chat template of the tokenizers made here."""

PLAIN = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
"""Chat template `plain`, for base models: the messages, each ended by a line break, without any marks."""


def chat_template(value: str) -> str:
    """The template that a config value stands for: `plain`, a file, or the Jinja text itself.

    Raises:
        ConfigError: neither of these.
    """
    if value == "plain":
        return PLAIN
    if "{{" in value or "{%" in value:
        return value
    path = Path(value).expanduser()
    if not path.is_file():
        raise ConfigError(
            "model.chat_template",
            f"'{value}' is neither a file nor a Jinja template",
            fix="give `plain`, the path of a .jinja file, or the template text",
        )
    return path.read_text(encoding="utf-8")


def train_char(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token per character: printable ASCII, line break, and every other character that occurs in the texts."""
    ascii_chars = "\n" + "".join(chr(code) for code in range(32, 127))
    occurring = set[str]().union(*texts)
    vocab = [*SPECIAL, *ascii_chars, *sorted(occurring - set(ascii_chars))]
    # BPE without merges is the fastest per-character model that the library has.
    model = models.BPE(vocab={token: i for i, token in enumerate(vocab)}, merges=[], unk_token=UNK)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Fuse()
    return _wrap(tokenizer)


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; the vocabulary is smaller than `vocab_size` where the texts do not fill it."""
    assert vocab_size >= MIN_BPE
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer)


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = TURNS
    return wrapped
