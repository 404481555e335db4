"""What it costs to bring a learner's weights to a vLLM engine in another process, against copying them in memory.

    python benchmarks/weight_sync.py [--size medium] [--bucket-mib 64] [--rounds 10]

The learner's side is this process, the engine's a child; weights go through shared memory, in vLLM's weight transfer
(`rlhf/sync/vllm_transfer.py`). A sync is measured whole, as the learner sees it: from its own tensors to an engine that
can sample from the new version. Twice, because vLLM's CPU build packs float32 weights for its matrix products when they
change, which takes longer than moving them: `engine.prepack=false` (judged, since it moves and does nothing else), and
the default. The best of several rounds counts, for the copy and for the sync, which are measured in turn. Needs two
cores, about 3 GiB and a minute. Exit status 1 when the ratio misses its target.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from operator import methodcaller
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.core.protocols import EngineSpec
from rlhf.core.training import TensorMeta
from rlhf.models import tiny, tokenizers
from rlhf.models.load import quiet
from rlhf.sync.vllm_transfer import Sender, Settings

TARGET = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tiny.SIZES, default="medium")
    parser.add_argument("--bucket-mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as name:
        weights = made(args.size, Path(name))
        size = sum(tensor.nbytes for _, tensor in weights)
        print(f"{size / 1e6:.0f} MB in {len(weights)} tensors, bucket of {args.bucket_mib} MiB")
        settings = Settings(backend="shm", bucket_mib=args.bucket_mib)
        ratios = {
            prepack: measured(weights, Path(name), settings, prepack=prepack, rounds=args.rounds)
            for prepack in (False, True)
        }
    print(f"{'reached' if ratios[False] <= TARGET else 'MISSED'}: {ratios[False]:.2f} of at most {TARGET:g}")
    return int(ratios[False] > TARGET)


def made(size: str, folder: Path) -> list[tuple[str, Tensor]]:
    """A model with its tokenizer in a folder, and its weights here."""
    tokenizer = tokenizers.train_char(["0123456789+-=# abcdefghijklmnopqrstuvwxyz"])
    ids = tokenizer.get_vocab()
    vocabulary = tiny.Vocabulary(size=len(ids), eos=ids[tokenizers.EOS], pad=ids[tokenizers.PAD])
    model = tiny.build_model(size, vocabulary=vocabulary, max_positions=256, seed=0)
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return [(name, weight.detach()) for name, weight in model.named_parameters()]


def measured(
    weights: list[tuple[str, Tensor]], folder: Path, settings: Settings, *, prepack: bool, rounds: int
) -> float:
    """Time of a sync over the time of a copy; prints both."""
    size = sum(tensor.nbytes for _, tensor in weights)
    target = [torch.zeros_like(tensor) for _, tensor in weights]
    engine = Engine(folder, prepack=prepack)
    sender = Sender(settings, rank=0, client=engine, source=Held(weights))
    copies: list[float] = []
    syncs: list[float] = []
    for version in range(1, rounds + 1):
        start = time.perf_counter()
        for (_, tensor), there in zip(weights, target, strict=True):
            there.copy_(tensor)
        copies.append(time.perf_counter() - start)
        start = time.perf_counter()
        sender.send(version)
        syncs.append(time.perf_counter() - start)
    sender.close()
    engine.close()
    copy, sync = min(copies), min(syncs)
    print(
        f"engine.prepack={str(prepack).lower():5}  copy {copy * 1e3:.0f} ms ({size / copy / 1e9:.1f} GB/s)  "
        f"sync {sync * 1e3:.0f} ms ({size / sync / 1e9:.1f} GB/s)  ratio {sync / copy:.2f}  "
        f"(medians: {statistics.median(syncs) / statistics.median(copies):.2f})"
    )
    return sync / copy


@dataclass(frozen=True)
class Held:
    """Implements `Source`."""

    tensors: list[tuple[str, Tensor]]

    def weights(self) -> list[tuple[str, Tensor]]:
        """All of them."""
        return self.tensors

    def metadata(self) -> list[TensorMeta]:
        """Of all of them."""
        return [TensorMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.tensors]


class Engine:
    """An engine in a child process. Implements `rlhf.core.protocols.TransferEnd`."""

    def __init__(self, folder: Path, *, prepack: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=serve, args=(there, folder, prepack), daemon=True)
        self._process.start()
        self._answer()

    def init_weight_transfer_engine(self, info: Mapping[str, Any]) -> None:
        self._call("init_weight_transfer_engine", info)

    def start_weight_update(self, *, verify: bool) -> None:
        self._call("start_weight_update", verify=verify)

    def update_weights(self, info: Mapping[str, Any]) -> None:
        self._call("update_weights", info)

    def finish_weight_update(self, version: int, *, checksums: Mapping[str, int] | None) -> None:
        self._call("finish_weight_update", version, checksums=checksums)

    def close(self) -> None:
        self._here.send(None)
        self._process.join()

    def _call(self, method: str, *arguments: Any, **named: Any) -> None:
        self._here.send(methodcaller(method, *arguments, **named))
        self._answer()

    def _answer(self) -> None:
        error = self._here.recv()
        if error is not None:
            raise error


def serve(connection: Connection, folder: Path, prepack: bool) -> None:
    """The child: an engine that does what it is told."""
    from rlhf.runtime.host import prepare
    from rollout import vllm_engine

    prepare(1)
    spec = EngineSpec(path=folder, dtype="float32", device="cpu", trust_remote_code=False, load=unused, open=unused)
    engine = vllm_engine.build(vllm_engine.Config(kv_cache_gib=0.25, prepack=prepack), spec)
    connection.send(None)
    while (call := connection.recv()) is not None:
        try:
            call(engine)
        except Exception as error:
            connection.send(error)
        else:
            connection.send(None)
    engine.close()


def unused(path: str = "") -> Any:
    """The engine reads the folder itself."""
    raise AssertionError


if __name__ == "__main__":
    sys.exit(main())
