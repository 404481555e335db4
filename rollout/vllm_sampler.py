"""vLLM's engine in this process, on the one thread that may touch it. Made and called by `rollout.vllm_engine`.

    consumes    jobs: the requests of one `generate` call
    produces    completions, put into their job as they end
    between     steps, new weights: whole, in parts, or through vLLM's weight transfer

A step runs to its end before anything else happens (no asynchronous scheduling), so that every token has one version.
What is unfinished when weights change goes on; its keys and values are computed again with the new weights, or kept.
Requests carry the version as the salt of vLLM's prefix cache: no version finds what another has left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf.core.protocols import EngineSpec, Transfer
from rollout import vllm_start
from rollout.manifest import Arrivals, manifest
from rollout.shared_bucket import Writer
from rollout.vllm_requests import Job, aborted, completion, parameters

if TYPE_CHECKING:
    from rollout.vllm_engine import Config

LOOPBACK_MIB = 64
"""Of the bucket through which weights of this process reach workers in processes of their own."""


class WeightsError(RuntimeError):
    """The engine's weights are not those of one version: it samples again once a whole set has arrived."""


class VllmSampler:
    """Implements `step_loop.Stepper`.

    Raises:
        ConfigError, DataError: vLLM cannot serve this model here.
    """

    def __init__(self, cfg: Config, spec: EngineSpec) -> None:
        # This thread is new, and the kernels of vLLM ask OpenMP, not torch, how many threads there are.
        torch.set_num_threads(torch.get_num_threads())
        self._manifest = manifest(spec.path, trust_remote_code=spec.trust_remote_code)
        self._llm = vllm_start.start(cfg, spec)
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._ends = vllm_start.ends(spec, self._tokenizer)
        self._context: int = self._llm.model_config.max_model_len
        self._cfg = cfg
        self._sleep_level = cfg.sleep_level if self._llm.model_config.enable_sleep_mode else 0
        self._waiting: deque[tuple[Job, int]] = deque()
        self._running: dict[str, tuple[Job, int]] = {}
        self._admitted = 0
        self._asleep = False
        self._update: Arrivals | None = None
        self._updating_to: int | None = None
        self._damage = ""
        self._loopback: Writer | None = None
        self.cached_tokens = 0
        """Prompt tokens that were found in the prefix cache, of all samples so far."""
        chosen = self._llm.vllm_config.weight_transfer_config
        assert chosen is not None
        self.transfer = Transfer(backend=chosen.backend, workers=cfg.tensor_parallel)
        self.version = 0
        self._llm.set_weight_version("0")

    def busy(self) -> bool:
        """Whether there is something to sample, and weights to sample it with."""
        return bool(self._waiting or self._running) and not self._asleep and self._update is None and not self._damage

    def step(self) -> None:
        """Sample one token of every running request."""
        from vllm import RequestOutput

        self._admit()
        for output in self._llm.step():
            assert isinstance(output, RequestOutput) and output.finished
            job, index = self._running.pop(output.request_id)
            self.cached_tokens += output.num_cached_tokens or 0
            request = job.requests[index]
            [sample] = output.outputs
            job.put(index, completion(request, job.sampling, sample, tokenizer=self._tokenizer, ends=self._ends))

    def fail(self, error: BaseException) -> None:
        """Give up all jobs."""
        jobs, mine = self._jobs(), list(self._running)
        self._waiting.clear()
        self._running.clear()
        for job in jobs:
            job.fail(error)
        self._llm.abort_request(mine)

    def close(self) -> None:
        """Free vLLM's memory."""
        if self._loopback is not None:
            self._loopback.close()
        self._llm.engine_core.shutdown()

    def submit(self, job: Job) -> None:
        """Take on the requests of a job, in order.

        Raises:
            WeightsError: the last update of the weights failed half way.
        """
        self._check_undamaged()
        for index, request in enumerate(job.requests):
            if len(request.prompt_tokens) >= self._context:
                job.put(index, aborted(request, version=self.version))
            else:
                self._waiting.append((job, index))

    def drop(self, job: Job) -> None:
        """Forget a job whose caller has gone."""
        mine = [name for name, (other, _) in self._running.items() if other is job]
        self._llm.abort_request(mine)
        for name in mine:
            del self._running[name]
        self._waiting = deque(item for item in self._waiting if item[0] is not job)

    def load(self, version: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take weights of a version, all or some; the version is in use when the last one has come.

        Raises:
            KeyError, ValueError: a weight that the model does not have, or of another shape.
            WeightsError: those of another version are still incomplete.
        """
        if self._update is not None and self._updating_to != version:
            self.cancel()
            raise WeightsError(f"version {version} came before {self._updating_to} was complete")
        with self._careful():
            if self._update is None:
                self._begin(version)
                self._each("start_loading")
            assert self._update is not None
            arriving = self._update.checked(weights)
            if self._cfg.tensor_parallel == 1:
                self._each("load_here", arriving)
            else:
                self._load_through_bucket(arriving)
            if not self._update.missing:
                self._each("finish_loading")
                self._commit(version)

    def init_transfer(self, info: Mapping[str, Any]) -> None:
        """Meet a learner: `WeightTransferEngine.init_transfer_engine` in every worker."""
        self._each("init_weight_transfer_engine", dict(info))

    def start_update(self, *, verify: bool) -> None:
        """Get ready for a whole set of weights through the transfer.

        Raises:
            WeightsError: another update has not ended, or the engine sleeps.
        """
        with self._careful():
            if self._update is not None:
                raise WeightsError("an update of the weights has begun and not ended")
            self._begin(None)
            self._each("note_checksums", verify)
            self._each("start_weight_update")

    def update(self, info: Mapping[str, Any]) -> None:
        """Take a part of them, as the transfer describes it.

        Raises:
            KeyError, ValueError: a weight that the model does not have, or of another shape.
        """
        with self._careful():
            if self._update is None:
                raise WeightsError("weights came before the start of an update")
            for name, shape in zip(info["names"], info["shapes"], strict=True):
                self._update.note(name, shape)
            self._update.begun = True
            self._each("update_weights", dict(info))

    def finish_update(self, version: int, checksums: Mapping[str, int] | None) -> None:
        """All have come: put them to use.

        Args:
            checksums: by name, what the learner has sent; None where it did not look.

        Raises:
            WeightsError: some are missing, or arrived as other bytes than were sent.
        """
        with self._careful():
            if self._update is None:
                raise WeightsError("an update of the weights ended that had not begun")
            if missing := self._update.missing:
                raise WeightsError(f"{len(missing)} weights did not come, {missing[0]} among them")
            self._each("finish_weight_update")
            if checksums is not None:
                self._compare(checksums)
            self._commit(version)

    def cancel(self) -> None:
        """Give an update up that does not come to its end. Without one, nothing."""
        if self._update is None:
            return
        if self._update.begun:
            self._damage = "an update of the weights stopped half way"
        self._update = self._updating_to = None
        self._each("finish_loading")
        self._each("note_checksums", False)

    def settle(self) -> None:
        """Before sampling goes on: the weights are those of one version.

        Raises:
            WeightsError: they are not; what is unfinished is given up.
        """
        self.cancel()
        if self._damage:
            self.fail(WeightsError(self._damage))
        self._check_undamaged()

    def sleep(self) -> None:
        """Give back the memory of the device. What is unfinished goes on after `wake`."""
        if self._asleep:
            return
        self._asleep = True
        if self._sleep_level:
            self._llm.sleep(self._sleep_level, mode="keep")

    def wake(self) -> None:
        """Take the memory back; after level 2 the weights have to come again."""
        if not self._asleep:
            return
        self._asleep = False
        if self._sleep_level:
            self._llm.wake_up()
        if self._sleep_level == 2:
            self._damage = "weights were discarded in sleep, and new ones have not come yet"

    def _admit(self) -> None:
        """Hand requests to vLLM as it has room, so that those that wait begin with the version that they begin with."""
        from vllm.inputs.engine import tokens_input

        while self._waiting and len(self._running) < self._cfg.max_num_seqs:
            job, index = self._waiting.popleft()
            request, name = job.requests[index], str(self._admitted)
            self._admitted += 1
            self._running[name] = (job, index)
            prompt = tokens_input(list(request.prompt_tokens), cache_salt=str(self.version))
            told = parameters(request, job.sampling, context=self._context, ends=self._ends)
            try:
                self._llm.add_request(name, prompt, told)
            except ValueError as error:
                # vLLM does not take it: the fault of this job alone.
                del self._running[name]
                self.drop(job)
                job.fail(error)

    def _begin(self, version: int | None) -> None:
        if self._asleep and self._sleep_level:
            raise WeightsError("the engine sleeps and has no memory for weights: wake it first")
        self._update, self._updating_to = Arrivals(self._manifest), version

    def _commit(self, version: int) -> None:
        self._update, self._updating_to, self._damage = None, None, ""
        self.version = version
        self._llm.set_weight_version(str(version))
        if not self._cfg.keep_kv or not self._running:
            self._llm.reset_prefix_cache(reset_running_requests=True)

    @contextmanager
    def _careful(self) -> Iterator[None]:
        """Weights are in motion: whatever goes wrong, the model is in order afterwards."""
        try:
            yield
        except BaseException:
            self.cancel()
            raise

    def _load_through_bucket(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        from rollout.shm_transfer import ShmUpdateInfo

        if self._loopback is None:
            self._loopback = Writer(LOOPBACK_MIB)
        for pieces in self._loopback.filled(weights):
            self._each("load_shared", self._loopback.place, asdict(ShmUpdateInfo.of(pieces)))

    def _compare(self, sent: Mapping[str, int]) -> None:
        for received in self._each("received_checksums"):
            other = [name for name, value in sent.items() if received.get(name) != value]
            if other:
                raise WeightsError(f"{len(other)} weights arrived as other bytes than were sent, {other[0]} among them")
        self._each("note_checksums", False)

    def _each(self, method: str, *arguments: object) -> list[Any]:
        """The answers of all workers."""
        return self._llm.collective_rpc(method, args=arguments)

    def _check_undamaged(self) -> None:
        if self._damage:
            raise WeightsError(f"{self._damage}: load a whole set, or replace the engine")

    def _jobs(self) -> list[Job]:
        pairs = [*self._waiting, *self._running.values()]
        return list({id(job): job for job, _ in pairs}.values())
