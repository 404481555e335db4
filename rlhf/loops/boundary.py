"""The knowledge boundary of a policy: how often it is right on a question when it answers.

    rl:
      boundary: {samples: 8, every: 20}   # probed by the stage itself, at its start and every 20 steps
      boundary: {source: probe}           # measured by a stage before, {loop: generate, build: boundary}, or a file

A probe samples the questions that the coming steps will draw, with the weights of that moment, has the run's rewards
grade them, and counts (`rlhf.data.build.boundary`). What it found lies in `data/<stage>.boundary.jsonl` of the run
folder, a line per question and probe with step and weights, like every other log of the run: a checkpoint knows its
length, and a resumed run continues with the very same lines. A question that was refused throughout keeps what was
found before.

    prompts -> [boundary: column `self_accuracy`] -> rollouts -> rewards

The share goes to the rewards with the prompt, in a column of it. So rewards stay without a state, a grader on another
node needs no file, and nothing flows back. Used by `rlhf.loops.collect` for `rewards.refusal`; a reward of one's own
may read the column too.

Sources: sampling a policy to find what it knows, "Alignment for Honesty" (Yang et al. 2023, arXiv 2312.07000, ten
samples) and TruthRL (Wei et al. 2025, arXiv 2509.25760, 256 samples, once before training); R-Tuning (Zhang et al.
2024, arXiv 2311.09677) takes one greedy answer. Probing again during training is our addition.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.metrics import Mean, Metric, Sum, mean_of
from rlhf.core.outcomes import SELF_ACCURACY
from rlhf.core.run_folder import append_lines, read_lines
from rlhf.core.seeding import content_key, derive_seed
from rlhf.core.types import Json, Prompt
from rlhf.data.build.boundary import rows
from rlhf.loops.prompts import Prompts
from rlhf.loops.rollouts import sample_groups
from rlhf.loops.stage import Stage


@dataclass(frozen=True, kw_only=True)
class BoundaryConfig:
    """How it is found out what the policy knows; by default it is not, and rewards go by each group's own samples."""

    samples: int = 0
    """Samples per question when the policy is probed; 0 probes nothing."""
    every: int = 0
    """Steps of the stage from one probe to the next; 0 probes at its start only."""
    source: str = ""
    """What is known at the start: an earlier `generate` stage with `build: boundary`, or the JSONL file of one; empty
    probes then, too."""

    def __post_init__(self) -> None:
        for name in ("samples", "every"):
            if vars(self)[name] < 0:
                raise ConfigError(name, f"{vars(self)[name]} is negative", fix="use 0 for none")
        if self.every and not self.samples:
            raise ConfigError("every", "probes with no samples", fix="set samples, for example 8")

    @property
    def on(self) -> bool:
        return bool(self.samples or self.source)


@dataclass(frozen=True, slots=True)
class Tally:
    """What is known of a question: answers, right ones among them, and the weights that gave them."""

    answered: int
    correct: int
    version: int

    def joined(self, newer: Tally) -> Tally:
        """Together with a later tally, which replaces an older policy's unless it holds no answer."""
        if newer.version == self.version:
            return Tally(self.answered + newer.answered, self.correct + newer.correct, self.version)
        return newer if newer.answered else self


@dataclass(frozen=True, slots=True)
class History:
    """What a stage knew of its questions, at any of its steps."""

    steps: tuple[int, ...]
    """Whose probes found something, in order."""
    known: tuple[Mapping[str, Tally], ...]
    """At the start, and from each of these steps on."""

    def at(self, step: int) -> Mapping[str, Tally]:
        """What was known when a step had drawn its prompts, by the content of the question."""
        return self.known[bisect_right(self.steps, step)]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe cost and found; nothing where none was due."""

    tokens: int = 0
    metrics: Mapping[str, Metric] = field(default_factory=dict[str, Metric])


class Boundary:
    """What the policy of a stage knows, measured when it is due.

    Args:
        cfg: how.
        stage: whose policy it is.
        prompts: of the stage.
        per_step: prompts that a step draws.
        steps: of the whole stage.
    """

    def __init__(self, cfg: BoundaryConfig, *, stage: Stage, prompts: Prompts, per_step: int, steps: int) -> None:
        self._cfg, self._stage, self._prompts, self._per_step = cfg, stage, prompts, per_step
        self._first = stage.progress.step - stage.progress.stage_step + 1
        self._last = self._first + steps - 1
        self._log = log_of(stage.folder.data, stage.name)
        self._tallies = history(cfg, stage.folder.data, stage=stage.name).at(stage.progress.step)

    def known(self, prompt: Prompt) -> Prompt:
        """The prompt with what is known of it, if anything is."""
        return attached(prompt, self._tallies)

    async def refresh(self, step: int, cursor: int) -> Probe:
        """Probe the policy if it is due.

        Args:
            step: global number of the step that is about to draw.
            cursor: prompts of the stage drawn so far.
        """
        if not self._due(step):
            return Probe()
        ahead = min(self._cfg.every or self._last, self._last - step + 1)
        asked = {content_key(prompt): prompt for prompt in self._prompts.take(cursor, ahead * self._per_step)}
        groups = await sample_groups(
            self._stage.engine,
            list(asked.values()),
            tokenizer=self._stage.tokenizer,
            sampling=self._stage.sampling,
            seed=derive_seed(self._stage.seed, "boundary", self._stage.name),
            step=step,
            count=self._cfg.samples,
        )
        tokens = sum(len(t.tokens) for group in groups for t in group.trajectories)
        found = list(rows(await self._stage.grader.grade(groups)))
        self._log.parent.mkdir(exist_ok=True)
        append_lines(self._log, found)
        self._tallies = joined(self._tallies, found)
        return Probe(tokens, _metrics(found))

    def _due(self, step: int) -> bool:
        done = step - self._first
        if not self._cfg.samples:
            return False
        return not self._cfg.source if done == 0 else bool(self._cfg.every) and done % self._cfg.every == 0


def log_of(data: Path, stage: str) -> Path:
    """Where a stage writes down what it found."""
    return data / f"{stage}.boundary.jsonl"


def history(cfg: BoundaryConfig, data: Path, *, stage: str) -> History:
    """What is known over the steps of a stage, from its source and from its own log; each is read once.

    Args:
        data: folder of the run's datasets.
        stage: its name.

    Raises:
        DataError: the source is not there, or holds something else.
    """
    steps: list[int] = []
    known = [read(found(cfg.source, data, "boundary.source")) if cfg.source else {}]
    for step, lines in itertools.groupby(read_lines(log_of(data, stage)), key=lambda line: int(line["step"])):
        steps.append(step)
        known.append(joined(known[-1], lines))
    return History(tuple(steps), tuple(known))


def copy(data: Path, to: Path, *, until: int) -> None:
    """Take what stages of a run wrote down up to a step into another folder, for a replay of what followed."""
    for log in sorted(data.glob("*.jsonl")):
        to.mkdir(exist_ok=True)
        append_lines(to / log.name, (line for line in read_lines(log) if line.get("step", 0) <= until))


def read(path: Path) -> dict[str, Tally]:
    """What a file of such records says of each question: newer weights replace older ones, equal ones add up.

    Raises:
        DataError: it holds something else.
    """
    lines = read_lines(path)
    try:
        return joined({}, lines)
    except (KeyError, TypeError, ValueError) as error:
        fix = "give the dataset of a stage with loop: generate and build: boundary"
        raise DataError(str(path), f"does not say how often questions were answered: {error!r}", fix=fix) from error


def joined(before: Mapping[str, Tally], lines: Iterable[Mapping[str, Json]]) -> dict[str, Tally]:
    """Tallies with further records, oldest first."""
    out = dict(before)
    for line in lines:
        key = str(line["content"])
        answered, correct, version = (int(str(line[name])) for name in ("answered", "correct", "policy_version"))
        tally = Tally(answered, correct, version)
        out[key] = out[key].joined(tally) if key in out else tally
    return out


def attached(prompt: Prompt, tallies: Mapping[str, Tally]) -> Prompt:
    """The prompt with the share of right answers in its column, where it was answered at all."""
    tally = tallies.get(content_key(prompt))
    if tally is None or not tally.answered:
        return prompt
    return replace(prompt, columns={**prompt.columns, SELF_ACCURACY: tally.correct / tally.answered})


def found(source: str, data: Path, where: str) -> Path:
    """The file behind a `source`.

    Args:
        data: folder of the run's datasets.
        where: config key that names it, for messages.

    Raises:
        DataError: there is none.
    """
    generated = data / f"{source}.jsonl"
    path = generated if generated.exists() else Path(source)
    if not path.is_file():
        fix = "name an earlier generate stage, or a file that one wrote"
        raise DataError(where, f"there is no {path}", fix=fix)
    return path


def _metrics(found: Sequence[Mapping[str, Json]]) -> dict[str, Metric]:
    def total(name: str) -> float:
        return float(sum(int(str(row[name])) for row in found))

    shares = [float(str(row[SELF_ACCURACY])) for row in found if row[SELF_ACCURACY] is not None]
    return {
        "boundary/prompts": Sum(len(found)),
        "boundary/refused": Mean(total("refused"), total("samples")),
        "boundary/self_accuracy": mean_of(shares),
    }
