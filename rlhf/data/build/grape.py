"""One row per question: of several right answers, whoever wrote them, the one that the model to be trained likes best.

    y* = argmax over y of log p(y | x)              normalize: sum
    y* = argmax over y of log p(y | x) / |y|        normalize: mean, over its tokens and its end

p is the model that the stage starts from, asked as a supervised stage would (its chat template, no temperature): give
the stage `start: model`, or the stage whose weights are to be trained on. Answers come from `pool`, earlier generate
stages or datasets with the same questions, from the prompt's worked solution, and from the stage's own samples, of
which `samples_per_prompt: 0` takes none. Equal texts count once. Rows of a pool have a `completion`; where they have no
`verdict`, the run's first reward grades them, and only what is right takes part.

Source: GRAPE (Zhang et al. 2025, arXiv 2502.04194, section 3); it takes answers of several models, and leaves open
whether log-probs are divided by lengths, so that both are offered: the sum favours short answers. In its experiments
the least likely answer did worse than a random one, and a model's own answers alone did worse than the pool; `pick`
makes the two that one would compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from rlhf.core.errors import ConfigError, DataError, did_you_mean
from rlhf.core.modules import Continuer
from rlhf.core.seeding import content_key, derive_seed
from rlhf.core.types import Group, Json, Prompt, Verdict

CONTINUES = False
WHOLE_GROUPS = False
WRONG_TOO = False
SOURCES = {"pool": ""}
UNSAMPLED = True

_PICKS = ("most", "random", "least")
_NORMALIZE = ("sum", "mean")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where answers come from, and how they are compared."""

    pool: list[str] = field(default_factory=list[str])
    """Earlier generate stages, or JSONL files, with answers to the same questions."""
    solution: bool = True
    """Whether the worked solution of a prompt takes part, unless the run's first reward finds it wrong."""
    normalize: str = "mean"
    """`sum` compares log-probs of whole answers, `mean` those per token."""
    pick: str = "most"
    """`most` takes the likeliest; `random` and `least` are to compare with."""

    def __post_init__(self) -> None:
        for name, choices in (("normalize", _NORMALIZE), ("pick", _PICKS)):
            if (value := vars(self)[name]) not in choices:
                raise ConfigError(name, f"'{value}' is not one of the choices", fix=did_you_mean(value, choices))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A right answer to a question."""

    text: str
    source: str
    """Name of the pool, `solution`, or the id of a sample."""


async def build(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[dict[str, Json]]:
    """Rows in the order of the questions; none for a question without a right answer."""
    found = await _candidates(groups, cfg, continuer)
    asked = [(group.prompt, one.text) for group, own in zip(groups, found, strict=True) for one in own]
    left = iter(await continuer.logprobs(asked))
    rows: list[dict[str, Json]] = []
    for group, own in zip(groups, found, strict=True):
        logprobs = [next(left) for _ in own]
        if own:
            rows.append(_row(group, own, logprobs, cfg))
    return rows


def score(logprobs: Sequence[float], normalize: str) -> float:
    """How likely an answer is."""
    total = math.fsum(logprobs)
    return total if normalize == "sum" else total / len(logprobs)


async def _candidates(groups: Sequence[Group], cfg: Config, continuer: Continuer) -> list[list[Candidate]]:
    """The right answers to each question."""
    pools = {name: continuer.rows(name, where="build.pool") for name in cfg.pool}
    found: list[dict[str, str]] = []
    doubted: list[tuple[int, Prompt, Candidate]] = []
    for n, group in enumerate(groups):
        texts = {t.text: t.id for t in group.trajectories}
        found.append(texts)
        if cfg.solution and group.prompt.solution is not None:
            doubted.append((n, group.prompt, Candidate(text=group.prompt.solution, source="solution")))
        for name, rows in pools.items():
            for row in rows.get(content_key(group.prompt), ()):
                one = Candidate(text=_completion(row, name), source=name)
                if row.get("verdict") is None:
                    doubted.append((n, group.prompt, one))
                elif row["verdict"] == Verdict.CORRECT:
                    texts.setdefault(one.text, name)
    verdicts = await continuer.graded([(prompt, one.text) for _, prompt, one in doubted])
    for (n, _, one), reward in zip(doubted, verdicts, strict=True):
        if reward.verdict is Verdict.CORRECT:
            found[n].setdefault(one.text, one.source)
    return [[Candidate(text=text, source=source) for text, source in texts.items()] for texts in found]


def _completion(row: Mapping[str, Any], pool: str) -> str:
    text = row.get("completion")
    if not isinstance(text, str):
        problem = f"a row of '{pool}' has no text `completion`: its columns are {', '.join(row)}"
        raise DataError("build.pool", problem, fix="give rows of whole answers, as build: samples writes them")
    return text


def _row(group: Group, own: Sequence[Candidate], logprobs: Sequence[tuple[float, ...]], cfg: Config) -> dict[str, Json]:
    scores = [score(one, cfg.normalize) for one in logprobs]
    if not all(map(math.isfinite, scores)):
        raise DataError(f"prompt {group.prompt.id}", "an answer has no finite likelihood", fix="look at the model")
    order = sorted(range(len(own)), key=lambda n: -scores[n])
    drawn = Random(derive_seed(0, "grape", group.prompt.id)).randrange(len(own))
    chosen = {"most": order[0], "least": order[-1], "random": drawn}[cfg.pick]
    return {
        "prompt_id": group.prompt.id,
        "messages": group.prompt.chat,
        "completion": own[chosen].text,
        "gold": group.prompt.gold,
        "verdict": Verdict.CORRECT.value,
        "source": own[chosen].source,
        "score": scores[chosen],
        "scores": [
            {"source": one.source, "logprob": math.fsum(found), "tokens": len(found)}
            for one, found in zip(own, logprobs, strict=True)
        ],
    }
