"""How a process reward model reads a solution: where its scores stand and what is put around the steps.

    kind          the model                            the score of a step
    classifier    token classification, 2 labels or 1  probability of `good_label` at the last token of `step_end`
    tokens        causal language model                `good` against `bad` as the token after `step_end`
    turns         causal language model                `good` against `bad` as the reply to the step, a user's turn

Published models: docs/rewards.md lists their settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.core.errors import ConfigError, did_you_mean

KINDS = ("classifier", "tokens", "turns")


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a model was trained to read. The defaults are those of models that `losses/prm.py` trains."""

    kind: str = "classifier"
    """`classifier`, `tokens` or `turns`; see above."""
    chat: bool = True
    """Put the question in the chat template, and the steps in the assistant's turn; false writes both as plain text."""
    system: str = ""
    """System message to ask with, in place of the prompt's own messages but the last question; empty keeps those."""
    before: str = ""
    """Text between a plain question and the first step."""
    step_end: str = "\n"
    """Put after every step; the score is read at its last token. Not used by `turns`."""
    between: str = ""
    """Put between the end of a step and the next step."""
    together: bool = False
    """Tokenize the whole text at once; false tokenizes question, steps and step ends each by itself."""
    good: str = "+"
    """Of `tokens` and `turns`: one token that stands for a good step."""
    bad: str = "-"
    """One that stands for a bad step."""
    good_label: int = 1
    """Of a `classifier` with two labels: the one that stands for a good step."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError("kind", f"'{self.kind}' is not one of the choices", fix=did_you_mean(self.kind, KINDS))
        if not self.step_end and self.kind != "turns":
            raise ConfigError("step_end", "is empty, so that there is no place for a score", fix="use a line break")
        if self.good_label not in (0, 1):
            raise ConfigError("good_label", f"{self.good_label} is not one of two labels", fix="use 1")
