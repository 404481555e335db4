"""Our online step on one GPU: tokens per second of sampling and training, share of the matmul peak, memory; beside TRL.

    python benchmarks/gpu.py [--size 0.5b] [--steps 8] [--markdown FILE] [--quick]

A Llama-shaped model of random weights samples answers that mostly run into the token limit, under a reward that gives
every group signal, so that nothing is skipped: sizes are what matters, not what is learnt. Each installed engine runs
the same recipe in a process of its own, then TRL does (with the extra `bench`), all in bfloat16. FLOPs are the model's
(`vs_trl_cost.py`), the peak is measured in the same run. Memory is the most that the GPU had in use while the process
ran, sampled twice a second by `nvidia-smi`; for vLLM it is what `gpu_memory_utilization` gives it and more.
`--quick` shows on any machine, also without a GPU, that everything works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import peak
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from vs_trl import CONFIG, ROOT, SIDE, WARM_UP
from vs_trl_cost import Cost
from vs_trl_side import SPREAD, Step

from rlhf.core.run_folder import RunFolder, read_lines
from rlhf.loops import settings, setup


@dataclass(frozen=True, kw_only=True)
class Size:
    """Shape of a model with as many key as query heads."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int = 32000


SIZES = {
    "nano": Size(hidden=64, layers=2, heads=2, intermediate=192, vocabulary=2048),
    "0.1b": Size(hidden=768, layers=12, heads=12, intermediate=2048),
    "0.5b": Size(hidden=1280, layers=20, heads=20, intermediate=3456),
    "1.5b": Size(hidden=2048, layers=24, heads=16, intermediate=5632),
}
ENGINES = {"transformers_engine": "transformers", "vllm_engine": "vllm"}
"""Engine to the package that it needs."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One process."""

    name: str
    steps: Sequence[Step]
    memory_gib: float | None
    cost: Cost | None
    """Of our runs."""
    sampled: float
    """Tokens per second of sampling, 0 where only whole steps are timed."""
    trained: float

    @property
    def step_seconds(self) -> float:
        return statistics.fmean(step.seconds for step in self.steps[1 + WARM_UP :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="0.5b")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--quick", action="store_true", help="small and short, on the CPU: shows that it works")
    args = parser.parse_args()
    if args.quick:
        args.size, args.steps = "nano", WARM_UP + 2
    elif not torch.cuda.is_available():
        parser.error("there is no CUDA device; --quick runs on the CPU")
    with tempfile.TemporaryDirectory() as scratch:
        text = report(Path(scratch), args)
    print(text)
    if args.markdown is not None:
        args.markdown.write_text(text + "\n")


def report(work: Path, args: argparse.Namespace) -> str:
    """Run everything. Returns Markdown."""
    device, dtype, side = ("cpu", "float32", 512) if args.quick else ("cuda", "bfloat16", 8192)
    flops = peak.measure(threads=2, dtype=dtype, size=side, device=device)
    where = "CPU" if args.quick else torch.cuda.get_device_name()
    folder = make_model(work / "model", SIZES[args.size])
    overrides = recipe(folder, work, args, device=device, dtype=dtype)
    runs = [
        run(work, "ours", overrides, engine=engine)
        for engine, package in ENGINES.items()
        if importlib.util.find_spec(package) is not None
    ]
    if importlib.util.find_spec("trl") is not None:
        runs.append(run(work, "trl", overrides, engine="transformers_engine"))
    lines = [
        f"{where}, {args.size} parameters, {dtype}, torch {torch.__version__}, peak {flops / 1e12:.1f} TFLOP/s.\n",
        "| | step, s | sampling, tokens/s | training, tokens/s | sampling/peak | training/peak | memory, GiB |",
        "|---|---|---|---|---|---|---|",
        *(row(found, flops) for found in runs),
    ]
    return "\n".join(lines)


def row(found: Measured, flops: float) -> str:
    """A line of the table; what is not known is a dash."""
    rates = [f"{rate:,.0f}" if rate else "–" for rate in (found.sampled, found.trained)]
    shares = ["–", "–"]
    if found.cost is not None:
        cost = found.cost
        shares = [f"{cost.flops[phase] / cost.seconds[phase] / flops:.1%}" for phase in ("gen", "update_actor")]
    memory = "–" if found.memory_gib is None else f"{found.memory_gib:.1f}"
    return f"| {found.name} | {found.step_seconds:.2f} | {' | '.join(rates)} | {' | '.join(shares)} | {memory} |"


def make_model(folder: Path, size: Size) -> Path:
    """A model of random weights with the tokenizer of the quickstart's byte-level vocabulary."""
    setup.parts(settings.read(CONFIG, ["model.tokenizer=bpe"]).settings, folder)
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.num_hidden_layers = size.hidden, size.layers
    config.num_attention_heads = config.num_key_value_heads = size.heads
    config.head_dim = size.hidden // size.heads
    config.intermediate_size, config.vocab_size = size.intermediate, size.vocabulary
    config.initializer_range = size.hidden**-0.5
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def recipe(folder: Path, work: Path, args: argparse.Namespace, *, device: str, dtype: str) -> list[str]:
    """One GRPO update per step on full groups."""
    prompts, samples, tokens = (4, 4, 16) if args.quick else (32, 8, 512)
    return [
        f"device={device}",
        "threads=2",
        "stages=[rl]",
        "model.init=null",
        f"model.path={folder}",
        f"run.folder={work}",
        f"rl.steps={args.steps}",
        f"rl.prompts_per_step={prompts}",
        f"rl.samples_per_prompt={samples}",
        f"sampling.max_tokens={tokens}",
        "rl.learner.micro_batch_tokens=16384",
        f"rl.learner.optimizer.precision={dtype}",
        "rl.learner.schedule.name=constant",
        "rl.evaluate_every=0",
        "checkpoints.every=1000000",
        "evaluation.greedy=false",
        "evaluation.prompts=8",
        "evaluation.samples=1",
        "evaluation.k=[1]",
        f"rewards={{spread: {{name: user_function, path: {SPREAD}, isolate: false}}}}",
    ]


def run(work: Path, side: str, overrides: Sequence[str], *, engine: str) -> Measured:
    """One process of `vs_trl_side.py`."""
    name = engine if side == "ours" else "trl"
    out, log = work / f"{name}.json", work / f"{name}.log"
    command = [str(SIDE), side, str(out), str(CONFIG), *overrides, f"engine.name={engine}", f"run.name={name}"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
    print(f"{name} …", file=sys.stderr, flush=True)
    with log.open("w") as file, memory_used() as used:
        done = subprocess.run([sys.executable, *command], env=env, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")
    steps = [Step(**step) for step in json.loads(out.read_text())]
    memory = max(used) / 2**10 if used else None
    if side == "trl":
        return Measured(name="TRL", steps=steps, memory_gib=memory, cost=None, sampled=0.0, trained=0.0)
    cost = Cost.of_run(work / name, skip=WARM_UP)
    samples = [row for row in read_lines(RunFolder(work / name).samples) if row["step"] > WARM_UP]
    count = len({row["step"] for row in samples})
    new = sum(row["length"] for row in samples) / count
    seen = new + sum(len(row["prompt_tokens"]) for row in samples) / count
    return Measured(
        name=f"ours, {engine}",
        steps=steps,
        memory_gib=memory,
        cost=cost,
        sampled=new / cost.seconds["gen"],
        trained=seen / cost.seconds["update_actor"],
    )


@contextmanager
def memory_used() -> Iterator[list[float]]:
    """MiB that the first GPU has in use, twice a second; stays empty where there is none."""
    found: list[float] = []
    stop = threading.Event()
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]

    def watch() -> None:
        while torch.cuda.is_available() and not stop.wait(0.5):
            found.append(float(subprocess.run(query, capture_output=True, text=True, check=True).stdout))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
