"""Our online step against TRL's GRPOTrainer: steps per second, and time to the same held-out accuracy, on a CPU.

    python benchmarks/vs_trl.py [--pairs 3] [--threads N] [--markdown FILE] [--work FOLDER] [--quick]

Needs the extra `bench`. Both sides run the same recipe (configs/quickstart.yaml, 32 prompts x 8 samples, up to 64 new
tokens, one update per batch, float32, nothing compiled) from the same weights, in turn, each in a process of its own;
see `vs_trl_side.py`. Two settings:

    sums         a model warmed up on worked sums, the math verifier as reward: what users see. Groups without signal
                 exist, and samples end at different lengths.
    worst case   an untrained model whose samples mostly run into the token limit, and a reward under which every group
                 has signal: nothing that we could skip.

A quiet machine is needed, as any other load falls on one side of a pair only. Takes 10 to 15 minutes on two cores;
`--quick` shows in two or three that everything works, its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import peak
from vs_trl_cost import Cost, mean_cost
from vs_trl_side import SPREAD, Step

from rlhf import cli
from rlhf.learner import checkpoint
from rlhf.loops import settings, setup

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "quickstart.yaml"
SIDE = Path(__file__).with_name("vs_trl_side.py")
OURS = "ours"
SIDES = (OURS, "trl")
WARM_UP = 2
"""Steps that do not count for the rate: both sides allocate and build lazily in them."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A workload for both sides."""

    name: str
    overrides: Sequence[str]
    gain: float | None
    """Held-out accuracy to gain over the start, for the time to it; None measures the rate only."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One run of each side."""

    steps: Mapping[str, list[Step]]
    cost: Cost
    """Where our time went."""

    def rate(self, side: str) -> float:
        """Steps per second after the warm-up."""
        counted = self.steps[side][1 + WARM_UP :]
        return len(counted) / sum(step.seconds for step in counted)

    def length(self, side: str) -> float:
        return statistics.fmean(step.length for step in self.steps[side][1 + WARM_UP :])

    @property
    def start(self) -> float:
        """Held-out accuracy before the first step, the same on both sides."""
        ours, trl = (self.steps[side][0].accuracy for side in SIDES)
        assert ours is not None and trl is not None and math.isclose(ours, trl, abs_tol=1e-6), (
            f"the sides start from different models: {ours}, {trl}"
        )
        return ours

    def seconds_to(self, gain: float, side: str) -> float | None:
        """Training time until an evaluation finds the start's accuracy plus `gain`; None if none does."""
        spent = 0.0
        for step in self.steps[side][1:]:
            spent += step.seconds
            if step.accuracy is not None and step.accuracy >= self.start + gain:
                return spent
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: every core")
    parser.add_argument("--gain", type=float, default=0.1, help="accuracy to gain in the setting `sums`")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep runs and logs there; must not exist")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works")
    args = parser.parse_args()
    if importlib.util.find_spec("trl") is None:
        parser.error("TRL is not installed: pip install -e '.[bench]'")
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch) / "work"
        work.mkdir(parents=True)
        text = report(work, args)
    print(text)
    if args.markdown is not None:
        args.markdown.write_text(text + "\n")


def report(work: Path, args: argparse.Namespace) -> str:
    """Run everything. Returns Markdown."""
    flops = peak.measure(threads=args.threads)
    parts = [
        f"TRL {metadata.version('trl')}, torch {metadata.version('torch')}, {args.threads} threads, float32;"
        f" matmul peak measured in the same run: {flops / 1e9:.0f} GFLOP/s.\n"
    ]
    for chosen in prepare(work, args):
        pairs = [run_pair(work, chosen, n, args.threads) for n in range(args.pairs)]
        parts += [f"**{chosen.name}**\n", rate_table(pairs)]
        if chosen.gain is not None:
            parts.append(accuracy_table(pairs, chosen.gain))
        parts.append(mean_cost([pair.cost for pair in pairs]).table(flops))
    return "\n".join(parts)


def prepare(work: Path, args: argparse.Namespace) -> list[Setting]:
    """Make both starting models, once."""
    prompts, samples = (8, 4) if args.quick else (32, 8)
    common = [
        "device=cpu",
        f"threads={args.threads}",
        "model.init=null",
        f"run.folder={work}",
        "stages=[rl]",
        f"rl.prompts_per_step={prompts}",
        f"rl.samples_per_prompt={samples}",
        "sampling.max_tokens=64",
        # A rate that TRL can be told too, and that does not depend on how many steps are measured.
        "rl.learner.schedule.name=constant",
        "checkpoints.every=1000000",
        "evaluation.greedy=false",
        f"evaluation.prompts={32 if args.quick else 256}",
    ]
    train = ["train", str(CONFIG), f"threads={args.threads}", f"run.folder={work}", "run.name=warm", "stages=[sft]"]
    execute(["-m", "rlhf.cli", *train, *(["sft.steps=40"] if args.quick else [])], work / "warm.log", args.threads)
    saved = work / "warm" / "checkpoints"
    warm = saved / f"step_{checkpoint.steps(saved)[-1]}"
    untrained = work / "untrained"
    # A byte-level vocabulary makes the EOS token one of hundreds, which an untrained model seldom draws.
    setup.parts(settings.read(CONFIG, ["model.tokenizer=bpe"]).settings, untrained)
    sums = [f"model.path={warm}", f"rl.steps={6 if args.quick else 40}", "rl.evaluate_every=5"]
    worst = [
        f"model.path={untrained}",
        f"rl.steps={4 if args.quick else 12}",
        "rl.evaluate_every=0",
        "evaluation.prompts=16",
        f"rewards={{spread: {{name: user_function, path: {SPREAD}, isolate: false}}}}",
    ]
    return [
        Setting(name="sums", overrides=[*common, *sums], gain=args.gain),
        Setting(name="worst case", overrides=[*common, *worst], gain=None),
    ]


def run_pair(work: Path, chosen: Setting, number: int, threads: int) -> Pair:
    """Both sides, the first one in turn."""
    steps: dict[str, list[Step]] = {}
    for side in SIDES if number % 2 == 0 else SIDES[::-1]:
        name = f"{chosen.name.replace(' ', '_')}_{number}_{side}"
        out = work / f"{name}.json"
        command = [str(SIDE), side, str(out), str(CONFIG), *chosen.overrides, f"seed={number}", f"run.name={name}"]
        print(f"{chosen.name}, pair {number + 1}, {side} …", file=sys.stderr, flush=True)
        execute(command, work / f"{name}.log", threads)
        steps[side] = [Step(**step) for step in json.loads(out.read_text())]
    ours = work / f"{chosen.name.replace(' ', '_')}_{number}_ours"
    return Pair(steps=steps, cost=Cost.of_run(ours, skip=WARM_UP))


def execute(command: Sequence[str], log: Path, threads: int) -> None:
    """Run Python with a fixed number of threads and no network; each side waits for threads as it does by default."""
    env = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    if OURS in command:
        env["GOMP_SPINCOUNT"] = cli.SPIN_COUNT
    with log.open("w") as file:
        done = subprocess.run([sys.executable, *command], env=env, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")


def rate_table(pairs: Sequence[Pair]) -> str:
    """Steps per second, pair by pair."""
    lines = [
        "| pair | ours, steps/s | TRL, steps/s | ratio | tokens per sample, ours | TRL |",
        "|---|---|---|---|---|---|",
    ]
    ratios = [pair.rate("ours") / pair.rate("trl") for pair in pairs]
    for n, (pair, ratio) in enumerate(zip(pairs, ratios, strict=True), start=1):
        rates = " | ".join(f"{pair.rate(side):.3f}" for side in SIDES)
        lengths = " | ".join(f"{pair.length(side):.1f}" for side in SIDES)
        lines.append(f"| {n} | {rates} | {ratio:.2f} | {lengths} |")
    medians = " | ".join(f"{statistics.median(p.rate(side) for p in pairs):.3f}" for side in SIDES)
    return "\n".join([*lines, f"| median | {medians} | **{statistics.median(ratios):.2f}** | | |", ""])


def accuracy_table(pairs: Sequence[Pair], gain: float) -> str:
    """Training time to the same held-out accuracy, pair by pair."""
    lines = [
        "| pair | accuracy at the start | target | ours, s | TRL, s | ratio | end, ours | end, TRL |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ratios: list[float] = []
    for n, pair in enumerate(pairs, start=1):
        ours, trl = (pair.seconds_to(gain, side) for side in SIDES)
        if ours is not None and trl is not None:
            ratios.append(trl / ours)
        times = " | ".join("not reached" if t is None else f"{t:.1f}" for t in (ours, trl))
        ratio = f"{trl / ours:.2f}" if ours is not None and trl is not None else "–"
        ends = " | ".join(f"{pair.steps[side][-1].accuracy:.3f}" for side in SIDES)
        lines.append(f"| {n} | {pair.start:.3f} | {pair.start + gain:.3f} | {times} | {ratio} | {ends} |")
    median = f"**{statistics.median(ratios):.2f}**" if len(ratios) == len(pairs) else "–"
    return "\n".join([*lines, f"| median | | | | | {median} | | |", ""])


if __name__ == "__main__":
    main()
