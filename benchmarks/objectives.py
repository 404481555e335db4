"""What an objective costs: the update of each loss of a policy against that of the plain one, and PPO against GRPO.

    python benchmarks/objectives.py [--rounds 15] [--prompts 16] [--samples 8] [--tokens 48]

All on the tiny model, one thread, CPU time of this process, so that other programs on the machine matter little. In
each round every variant makes one update on the same samples, in an order drawn anew; what is reported is the median
over rounds of its time over the plain loss's in the same round. A step of GRPO is sampling and the policy's update, one
of PPO also the critic's values and its update, on as many tokens. Exit status 1 when a target is missed: 1.10 for a
loss that needs no other model, 2.2 for PPO.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rlhf.core.config import build_component
from rlhf.core.sampling import Sampling, Transforms
from rlhf.core.training import Batch, Sample
from rlhf.core.types import Request
from rlhf.data.packing import count, pack
from rlhf.learner import learner as learners
from rlhf.learner.learner import Learner
from rlhf.models import load
from rlhf.runtime.roles import EngineRole, LearnerRole, ModelFolder

LOSS_TARGET, PPO_TARGET = 1.10, 2.2
ALL_RULES = {
    "tis_level": "sequence",
    "token_mask": [0.1, 10.0],
    "sequence_mask": [0.01, 100.0],
    "geometric_mask": [0.1, 10.0],
    "negative_max_kl": 5.0,
}
PLAIN: dict[str, Any] = {"name": "policy", "correction": {"tis_cap": None}}
VARIANTS: dict[str, dict[str, Any]] = {
    "policy": {"name": "policy"},
    "policy, sequence": {"name": "policy", "aggregate": "sequence"},
    "policy, dual clip": {"name": "policy", "dual_clip": 3.0},
    "policy, every correction": {"name": "policy", "correction": ALL_RULES},
    "policy, KL": {"name": "policy", "kl_coef": 0.01, "kl_estimator": "k3+"},
    "policy, entropy": {"name": "policy", "entropy_coef": 0.01},
    "gspo": {"name": "gspo"},
    "gspo, token form": {"name": "gspo", "form": "token"},
    "cispo": {"name": "cispo"},
    "sapo": {"name": "sapo"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8, help="per prompt")
    parser.add_argument("--tokens", type=int, default=48, help="per answer")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = load.prepare(load.Config(init="tiny"), Path(scratch) / "model", texts=["0123456789+-= \n#"], seed=0)
        model = ModelFolder(path=folder, dtype="float32", trust_remote_code=False, chat_template=None)
        samples = drawn(args.prompts, args.samples, args.tokens, vocabulary=len(model.tokenizer()))
        missed = losses(model, samples, rounds=args.rounds)
        return int(steps(model, samples, rounds=max(3, args.rounds // 3), tokens=args.tokens) or missed)


def losses(model: ModelFolder, samples: list[Sample], *, rounds: int) -> bool:
    """Print the ratios; whether one misses its target."""
    batches = pack(samples, token_budget=4096)
    made = {name: learner(model, loss) for name, loss in {"plain": PLAIN, **VARIANTS}.items()}
    found = paired({name: updates(one, batches, samples) for name, one in made.items()}, rounds=rounds)
    plain = statistics.median(found["plain"])
    print(
        f"{len(samples)} samples, {count(samples).tokens} target tokens, {rounds} rounds; plain {1e3 * plain:.0f} ms\n"
    )
    print("| loss | update over plain | middle half of rounds |\n|---|---|---|")
    missed = False
    for name in VARIANTS:
        ratios = [a / b for a, b in zip(found[name], found["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        missed |= middle > LOSS_TARGET
        print(f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    return missed


def steps(model: ModelFolder, samples: list[Sample], *, rounds: int, tokens: int) -> bool:
    """Print what PPO takes of GRPO; whether it misses its target."""
    batches = pack(samples, token_budget=4096)
    engine = EngineRole(component=build_component("rollout", "transformers_engine", "engine"), model=model).build("cpu")
    requests = [Request(id=s.id, prompt_tokens=s.tokens[: s.target_start], seed=n) for n, s in enumerate(samples)]
    policy, critic = learner(model, {"name": "policy"}), learner(model, {"name": "value"})
    parts = {
        "sampling": lambda: engine.generate(requests, sampling=Sampling(max_tokens=tokens)),
        "policy": updates(policy, batches, samples),
        "values": lambda: critic.values(batches),
        "critic": updates(critic, batches, samples),
    }
    found = {name: statistics.median(times) for name, times in paired(parts, rounds=rounds).items()}
    grpo = found["sampling"] + found["policy"]
    ppo, update = sum(found.values()), (sum(found.values()) - found["sampling"]) / found["policy"]
    print("\n" + ", ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in found.items()))
    print(f"a step of PPO over one of GRPO: {ppo / grpo:.2f} (target {PPO_TARGET}); without sampling {update:.2f}")
    return ppo / grpo > PPO_TARGET


def paired(work: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each, round by round, after one round that does not count."""
    rng, found = random.Random(0), {name: list[float]() for name in work}
    for round_number in range(rounds + 1):
        for name in rng.sample(list(work), len(work)):
            start = time.process_time()
            work[name]()
            if round_number:
                found[name].append(time.process_time() - start)
    return found


def learner(model: ModelFolder, loss: dict[str, Any]) -> Learner:
    """One that trains with a loss."""
    role = LearnerRole(
        model=model,
        loss=build_component("rlhf.losses", loss, "loss"),
        cfg=learners.Config(),
        transforms=Transforms(),
        total_updates=1000,
        version=0,
        first_version=0,
    )
    return role.build("cpu")


def updates(made: Learner, batches: list[Batch], samples: list[Sample]) -> Callable[[], object]:
    """One update per call."""

    def update() -> None:
        made.forward_backward(batches, counts=count(samples))
        made.optim_step()

    return update


def drawn(prompts: int, each: int, tokens: int, *, vocabulary: int) -> list[Sample]:
    """Random answers to random prompts, with every stream near what the new model says."""
    rng = random.Random(0)

    def stream(low: float, high: float) -> tuple[float, ...]:
        return tuple(rng.uniform(low, high) for _ in range(tokens))

    out: list[Sample] = []
    for prompt in range(prompts):
        question = tuple(rng.randrange(vocabulary) for _ in range(12))
        for sample in range(each):
            out.append(
                Sample(
                    id=f"{prompt}-{sample}",
                    tokens=question + tuple(rng.randrange(vocabulary) for _ in range(tokens)),
                    target_start=len(question),
                    advantages=(rng.uniform(-1, 1),) * tokens,
                    old_logprobs=stream(-3.0, -2.8),
                    rollout_logprobs=stream(-3.0, -2.8),
                    ref_logprobs=stream(-3.0, -2.8),
                    values=stream(0.0, 1.0),
                    returns=stream(0.0, 1.0),
                )
            )
    return out


if __name__ == "__main__":
    sys.exit(main())
