"""vLLM engines of other kinds: architectures, ways of loading, types, several workers; and those that cannot be."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny_model
import torch
from vllm_models import SHAPED, engine, folder, gap, logprobs, model, requests, spec, trainer

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.sampling import Sampling
from rlhf.learner import optimizer
from rlhf.learner.backends.torch_backend import TorchBackend
from rollout import vllm_engine

pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"prepack": False}),
        ("qwen3", {}),
        ("qwen3", {"prepack": False}),
        ("gpt2", {}),
        ("gpt2", {"prepack": False}),
    ],
)
def test_new_weights_are_all_in_use(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    made = engine(folder(model(family), tmp_path), **settings)
    asked = requests()
    for seed in (1, 2):
        made.load_weights(seed, model(family, seed=seed).named_parameters())
        assert gap(trainer(model(family, seed=seed)), asked, made.generate(asked, sampling=SHAPED), SHAPED) < 1e-4
    made.close()


def test_weights_of_another_type_are_converted(tmp_path: Path) -> None:
    made = engine(folder(model(), tmp_path), dtype="bfloat16")
    asked = requests()
    made.load_weights(1, model(seed=1).named_parameters())
    done = made.generate(asked, sampling=SHAPED)
    assert 1e-4 < gap(trainer(model(seed=1)), asked, done, SHAPED) < 0.5
    assert gap(trainer(model(seed=0)), asked, done, SHAPED) > 1
    made.close()


def test_with_kept_keys_and_values_old_answers_go_on_and_new_ones_are_the_new_version_s(tmp_path: Path) -> None:
    made = engine(folder(model(), tmp_path), keep_kv=True, max_num_seqs=8)
    stepped = threading.Event()

    def watch(sampler: Any) -> None:
        step = type(sampler).step

        def noted() -> None:
            step(sampler)
            stepped.set()

        sampler.step = noted

    made._loop.call(watch)
    # Most of a group begins after the update, however late it comes, beside blocks of those that began before.
    asked = requests([tiny_model.ids("0123456789" * 8)], group=64)
    sampling = Sampling(max_tokens=60)
    found: list[Any] = []
    caller = threading.Thread(target=lambda: found.extend(made.generate(asked, sampling=sampling)))
    caller.start()
    assert stepped.wait(60)
    made.pause()
    made.load_weights(3, model(seed=1).named_parameters())
    made.resume()
    caller.join(60)
    learners = {version: trainer(model(seed=seed)) for version, seed in ((0, 0), (3, 1))}
    crossed, fresh = [c for c in found if c.versions], [c for c in found if c.policy_version == 3]
    assert crossed and len(fresh) >= 8
    by_id = {request.id: request for request in asked}
    assert gap(learners[3], [by_id[c.request_id] for c in fresh], fresh, sampling) < 1e-4
    mixed = 0.0
    for c in crossed:
        of = torch.tensor(c.versions)
        found_logprobs = torch.tensor(c.logprobs)
        old, new = (logprobs(learners[v], by_id[c.request_id], c, sampling) for v in (0, 3))
        assert (old - found_logprobs)[of == 0].abs().max() < 1e-4
        mixed = max(mixed, (new - found_logprobs)[of == 3].abs().max().item())
    assert mixed > 1e-2, "the old keys and values must show, or they were not kept"
    made.close()


def test_two_workers_share_a_model(tmp_path: Path) -> None:
    made = engine(folder(model(), tmp_path), tensor_parallel=2)
    asked = requests()
    assert gap(trainer(model()), asked, made.generate(asked, sampling=SHAPED), SHAPED) < 1e-4
    weights = list(model(seed=1).named_parameters())
    made.load_weights(1, weights[:4])
    made.load_weights(1, weights[4:])
    assert made.version == 1
    assert gap(trainer(model(seed=1)), asked, made.generate(asked, sampling=SHAPED), SHAPED) < 1e-4
    made.close()


def test_a_closed_engine_says_so_and_a_new_one_takes_its_place(tmp_path: Path) -> None:
    made = model()
    first = engine(folder(made, tmp_path))
    done = first.generate(requests(), sampling=SHAPED)
    # That of a checkpoint from the middle of a stage.
    TorchBackend(made, optimizer.Config()).save(tmp_path)
    second = engine(tmp_path)
    with pytest.raises(RuntimeError, match="is closed"):
        first.generate(requests(), sampling=SHAPED)
    assert [c.tokens for c in second.generate(requests(), sampling=SHAPED)] == [c.tokens for c in done]
    second.close()
    second.close()
    assert not any(thread.name == "vllm" for thread in threading.enumerate())


def test_what_vllm_cannot_serve_is_refused_with_a_way_out(tmp_path: Path) -> None:
    small = folder(tiny_model.model(), tmp_path / "small")
    with pytest.raises(DataError, match="attention heads of 8"):
        engine(small)
    with pytest.raises(ConfigError, match="vLLM has no float64"):
        vllm_engine.build(vllm_engine.Config(), spec(small, dtype="float64"))
    with pytest.raises(ConfigError, match="sample on 'cuda'"):
        vllm_engine.build(vllm_engine.Config(), spec(small, device="cuda"))
    with pytest.raises(ConfigError, match="max_model_len") as caught:
        engine(folder(model(), tmp_path / "short"), max_model_len=4096)
    assert caught.value.where == "engine"


def test_a_process_that_is_interrupted_while_it_samples_ends(tmp_path: Path) -> None:
    folder(model(), tmp_path)
    code = (
        "import signal, sys, threading\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        f"sys.path[:0] = [{str(ROOT / 'tests/cluster')!r}, {str(ROOT / 'tests/unit')!r}]\n"
        "from pathlib import Path\nfrom vllm_models import *\n"
        f"made = engine(Path({str(tmp_path)!r}))\n"
        "work = lambda: made.generate(requests([(9, 16)], group=200), sampling=Sampling(max_tokens=400))\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "made.generate(requests([(9, 16)], group=1), sampling=Sampling(max_tokens=2))\n"
        "print('ready', flush=True)\nwork()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None and "ready\n" in iter(run.stdout.readline, "")
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    # Python says 1 where another thread has run code after the interrupt; a crash would be another signal.
    assert run.returncode in (1, -signal.SIGINT), said
    assert "\nKeyboardInterrupt\n" in said and "terminate called" not in said
