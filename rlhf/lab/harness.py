"""`rlhf evaluate TARGET --harness TASK …`: the tasks of EleutherAI's lm-evaluation-harness, run on our engines.

The harness (Gao et al., github.com/EleutherAI/lm-evaluation-harness, `lm_eval` 0.4.13) brings prompts, few-shot
examples and metrics; `HarnessModel` answers its three kinds of request:

    generate_until           the run's engine, greedy or sampled, up to stop strings
    loglikelihood            sum of log p(token | what precedes) over the continuation, and whether it is what greedy
                             decoding gives: a frozen learner with the same weights, as engines say only how likely what
                             they sampled themselves was
    loglikelihood_rolling    the same of a whole text, in windows as wide as the model's context, each token once

Contexts that leave no room are cut on the left, as the harness's own models do; how many were is logged. A generation
setting that our sampling does not have raises instead of being left out. Log-probs are at temperature 1. Needs
`pip install 'rlhf[lm-eval]'`; tasks whose data is not at hand are fetched by the harness, from the Hugging Face hub.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from lm_eval import simple_evaluate, utils  # pyright: ignore[reportMissingImports]
from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.models.utils import normalize_gen_kwargs  # pyright: ignore[reportMissingImports]
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf.core.errors import ConfigError
from rlhf.core.protocols import EngineHandle, LearnerHandle
from rlhf.core.run_folder import write_whole
from rlhf.core.sampling import Sampling, Transforms
from rlhf.core.seeding import derive_seed
from rlhf.core.training import Sample
from rlhf.core.types import Request
from rlhf.data.packing import by_sample, pack
from rlhf.data.render import eos_id
from rlhf.learner import learner
from rlhf.loops import measure, setup
from rlhf.loops.settings import Settings
from rlhf.runtime.roles import LearnerRole

_READ = {"do_sample", "until", "max_gen_toks", "temperature", "top_p", "top_k"}
"""Generation settings that mean something here."""
_LOG = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What answers the harness, in the event loop that runs it."""

    engine: EngineHandle
    learner: LearnerHandle
    loop: asyncio.AbstractEventLoop

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the event loop, and wait here, in the harness's thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


class HarnessModel(TemplateLM):
    """Implements `lm_eval.api.model.LM`.

    Args:
        served: engine and learner, with the same weights.
        tokenizer: of the model.
        context: positions of the model.
        max_tokens: new tokens where a task does not say.
        token_budget: of a micro-batch of log-probs; more than `context`.
        seed: of sampling.
    """

    def __init__(
        self,
        served: Served,
        tokenizer: PreTrainedTokenizerBase,
        *,
        context: int,
        max_tokens: int,
        token_budget: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.cut = 0
        """Contexts that were cut on the left so far."""
        self._served, self._context, self._max_tokens = served, context, max_tokens
        self._token_budget, self._seed, self._asked = token_budget, seed, 0

    @property
    def eot_token_id(self) -> int:
        """What ends a text, and stands before one that has no context."""
        return eos_id(self.tokenizer)

    @property
    def max_length(self) -> int:
        """Positions of the model."""
        return self._context

    @property
    def tokenizer_name(self) -> str:
        """Part of the name of the harness's caches."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids, without special ones unless they are asked for."""
        return cast("list[int]", self.tokenizer.encode(string, add_special_tokens=bool(add_special_tokens)))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as the text that the model continues."""
        found = self.tokenizer.apply_chat_template(
            chat_history, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return cast(str, found)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A continuation of each context, cut before the first stop string.

        Raises:
            ConfigError: a task asks for a way of generating that there is none of.
        """
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(_arguments(request)[1], sort_keys=True), []).append(place)
        out = [""] * len(requests)
        for places in groups.values():
            sampling = self._sampling(_arguments(requests[places[0]])[1])
            asked = [self._request(_arguments(requests[place])[0], sampling) for place in places]
            found = self._served.wait(_called(self._served.engine.generate(asked, sampling=sampling)))
            for place, completion in zip(places, found, strict=True):
                out[place] = completion.text
                self.cache_hook.add_partial("generate_until", requests[place].args, completion.text)
        return out

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-prob of each text, the end-of-text token before it."""
        windows: list[tuple[tuple[str, str], list[int], list[int]]] = []
        owners: list[int] = []
        for place, request in enumerate(requests):
            rolling = utils.get_rolling_token_windows(
                token_list=self.tok_encode(_arguments(request)[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._context,
                context_len=1,
            )
            for context, text in map(utils.make_disjoint_window, rolling):
                windows.append((("", ""), context, text))
                owners.append(place)
        out = [0.0] * len(requests)
        for place, (logprob, _) in zip(owners, self._loglikelihood_tokens(windows), strict=True):
            out[place] += logprob
        return out

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        samples = [self._sample(place, context, text) for place, (_, context, text) in enumerate(requests)]
        scored = [sample for sample in samples if len(sample.tokens) > sample.target_start]
        logprobs, likeliest = self._served.wait(self._scored(scored)) if scored else ({}, {})
        out: list[tuple[float, bool]] = []
        for sample in samples:
            targets = sample.tokens[sample.target_start :]
            total = sum(logprobs.get(sample.id, ()))
            out.append((float(total), all(a == b for a, b in zip(targets, likeliest.get(sample.id, ()), strict=True))))
        return out

    async def _scored(
        self, samples: Sequence[Sample]
    ) -> tuple[Mapping[str, Sequence[float]], Mapping[str, Sequence[float]]]:
        """Log-prob of every target, and the likeliest token in its place, by sample."""
        batches = pack(samples, token_budget=self._token_budget, multiple=self._served.learner.ranks)
        logprobs: list[Tensor] = await self._served.learner.logprobs(batches)
        top = await self._served.learner.topk(batches, k=1)
        return by_sample(batches, logprobs), by_sample(batches, [found.ids_TK[:, 0] for found in top])

    def _sample(self, place: int, context: list[int], text: list[int]) -> Sample:
        """Context and continuation, of which the last token is read by nobody; of what is too long, the end."""
        assert context, "the harness puts the end-of-text token where there is no context"
        kept = [*context, *text][-self._context - 1 :]
        self.cut += len(kept) < len(context) + len(text)
        start = max(1, len(kept) - len(text))
        return Sample(id=str(place), tokens=tuple(kept), target_start=start)

    def _request(self, context: str, sampling: Sampling) -> Request:
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        room = self._context - sampling.max_tokens
        if room < 1:
            problem = f"a task wants {sampling.max_tokens} new tokens, the model has {self._context} positions"
            raise ConfigError("--harness", problem, fix="choose a task of shorter answers, or a longer context")
        self.cut += len(tokens) > room
        self._asked += 1
        name = f"harness-{self._asked}"
        return Request(id=name, prompt_tokens=tuple(tokens[-room:]), seed=derive_seed(self._seed, "sample", name))

    def _sampling(self, settings: dict[str, Any]) -> Sampling:
        read = cast("dict[str, Any]", normalize_gen_kwargs(settings, self._max_tokens))
        if unknown := sorted(key for key in read.keys() - _READ if read[key] is not None):
            problem = f"a task generates with {', '.join(unknown)}, which our sampling has not"
            raise ConfigError("--harness", problem, fix="choose another task, or override its generation_kwargs")
        stop = [text for text in read.get("until") or [] if text]
        return Sampling(
            temperature=float(read.get("temperature") or 0.0) if read.get("do_sample") else 0.0,
            top_p=float(read.get("top_p") or 1.0),
            top_k=int(read.get("top_k") or 0),
            max_tokens=int(read["max_gen_toks"]),
            stop=stop,
        )


def evaluate(
    target: Path,
    overrides: Sequence[str],
    tasks: Sequence[str],
    *,
    out: Path | None,
    limit: int | None = None,
    include: Path | None = None,
    chat: bool = False,
) -> dict[str, Any]:
    """Run tasks of the harness, and print its table.

    Args:
        target: a config file, or a run folder.
        overrides: `key=value`.
        tasks: names of the harness.
        out: where to write its results as JSON.
        limit: documents per task, at most.
        include: folder with task files of one's own.
        chat: render prompts by the model's chat template.

    Raises:
        ConfigError: no such task.
    """
    manager = TaskManager(include_path=str(include) if include is not None else None)
    if unknown := [name for name in tasks if name not in manager.all_tasks]:
        raise ConfigError("--harness", f"the harness has no task {', '.join(unknown)}", fix="see `lm-eval ls tasks`")

    with measure.opened(target, overrides) as opened:
        asked = {"tasks": list(tasks), "task_manager": manager, "limit": limit, "apply_chat_template": chat}
        found = asyncio.run(_run(opened.experiment.settings, opened.shared, opened.now.weights, asked))
    print(utils.make_table(found))
    if out is not None:
        kept = {key: found[key] for key in ("results", "versions", "n-shot", "n-samples") if key in found}
        write_whole(out, json.dumps(kept, indent=1, default=str) + "\n")
    return found


async def _run(settings: Settings, shared: setup.Parts, weights: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the harness finds on an engine with these weights, asked in a thread of its own."""
    context = setup.context_length(weights)
    async with setup.running(settings, shared) as runtime:
        engine = await runtime.engine(setup.engine(settings, weights))
        held = await runtime.learner(_frozen(settings, weights, context))
        model = HarnessModel(
            Served(engine=engine, learner=held, loop=asyncio.get_running_loop()),
            shared.tokenizer,
            context=context,
            max_tokens=settings.sampling.max_tokens,
            token_budget=_budget(context),
            seed=settings.seed,
        )
        run = cast("Callable[..., Any]", simple_evaluate)
        evaluated = asyncio.to_thread(run, model=model, bootstrap_iters=1000, log_samples=False, **asked)
        found = cast("dict[str, Any]", await evaluated)
        if model.cut:
            _LOG.warning("%d contexts did not fit the model's %d positions and were cut", model.cut, context)
        return found


def _frozen(settings: Settings, weights: Path, context: int) -> LearnerRole:
    """A learner that gives log-probs."""
    return LearnerRole(
        model=setup.opened(settings, weights),
        loss=None,
        cfg=learner.Config(micro_batch_tokens=_budget(context)),
        transforms=Transforms(),
        total_updates=1,
        version=0,
        first_version=0,
    )


def _arguments(request: Instance) -> tuple[Any, ...]:
    """Text and settings of a request."""
    return cast("tuple[Any, ...]", request.args)


def _budget(context: int) -> int:
    return max(context + 1, 4096)


async def _called(work: Any) -> Any:
    """An awaitable as a coroutine."""
    return await work
