"""What objectives cost: the update of each loss against that of the plain policy loss, PPO against GRPO, a reference.

    python benchmarks/objectives.py [--rounds 9] [--prompts 16] [--samples 8] [--tokens 32] [--json FILE]

All on the tiny model, one thread, CPU time of this process, so that other programs on the machine matter little. In
each round every loss makes one update on the same batches, in an order drawn anew; what is reported is the median over
rounds of its time over the plain loss's in the same round and on the same batches: answers by themselves, pairs of
them, or all answers to a question as one unit. A step of GRPO is sampling and the policy's update, one of PPO also the
critic's values and its update, on as many tokens. A KL costs a pass of the reference besides, once per rollout; beside
adapters it is the policy without them, and no second model.

Exit status 1 when a target is missed: 1.10 for a loss that needs no further pass of a model, 2.2 for PPO. `intuitive`
reads its own guesses first, which is a pass, so that it has no target here.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
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
ALONE: dict[str, dict[str, Any]] = {
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
    "ce": {"name": "ce"},
    "distill": {"name": "distill"},
    "kto": {"name": "kto"},
    "intuitive": {"name": "intuitive"},
}
PAIRS: dict[str, dict[str, Any]] = {
    "dpo": {"name": "dpo"},
    "dpo, robust": {"name": "dpo", "label_smoothing": 0.1, "smoothing": "robust"},
    "dpo, NLL": {"name": "dpo", "nll_coef": 1.0},
    **{name: {"name": name} for name in ("dpo_norm", "ipo", "hinge", "apo_zero", "sppo", "simpo", "orpo")},
}
UNITS: dict[str, dict[str, Any]] = {"mml": {"name": "mml"}}
OWN_PASS = ("intuitive",)
"""Losses with a further pass of the model that learns."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8, help="per prompt, even")
    parser.add_argument("--tokens", type=int, default=32, help="per answer")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    over, found = dict[str, float](), dict[str, Any]()
    with tempfile.TemporaryDirectory() as scratch:
        folder = load.prepare(load.Config(init="tiny"), Path(scratch) / "model", texts=["0123456789+-= \n#"], seed=0)
        model = ModelFolder(path=folder, dtype="float32", trust_remote_code=False, chat_template=None)
        samples = drawn(args.prompts, args.samples, args.tokens, vocabulary=len(model.tokenizer()))
        print(f"{len(samples)} samples, {count(samples).tokens} target tokens, {args.rounds} rounds\n")
        print("| loss | on | update over plain | middle half of rounds |\n|---|---|---|---|")
        kinds = {
            "answers": (ALONE, [replace(s, unit=None) for s in samples]),
            "pairs": (PAIRS, samples),
            "questions": (UNITS, [replace(s, unit=s.id.partition("-")[0], label=None) for s in samples]),
        }
        for kind, (variants, of_kind) in kinds.items():
            over |= losses(model, variants, of_kind, kind=kind, rounds=args.rounds)
        few = max(3, args.rounds // 2)
        found |= steps(model, kinds["answers"][1], rounds=few, tokens=args.tokens)
        found |= references(model, kinds["answers"][1], rounds=few)
    if args.json is not None:
        args.json.write_text(json.dumps({"losses": over} | found, indent=1) + "\n", encoding="utf-8")
    slow = [name for name, ratio in over.items() if ratio > LOSS_TARGET and name not in OWN_PASS]
    if missed := slow + (["PPO"] if found["ppo"] > PPO_TARGET else []):
        print(f"\nmissed: {', '.join(missed)}")
    return int(bool(missed))


def losses(
    model: ModelFolder, variants: dict[str, dict[str, Any]], samples: list[Sample], *, kind: str, rounds: int
) -> dict[str, float]:
    """Print the ratios of the losses on one kind of batches; their medians."""
    batches = pack(samples, token_budget=4096)
    made = {name: learner(model, loss) for name, loss in {"plain": PLAIN, **variants}.items()}
    found = paired({name: updates(one, batches, samples) for name, one in made.items()}, rounds=rounds)
    medians: dict[str, float] = {}
    for name in variants:
        ratios = [a / b for a, b in zip(found[name], found["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        medians[name] = middle
        print(f"| {name} | {kind} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    return medians


def steps(model: ModelFolder, samples: list[Sample], *, rounds: int, tokens: int) -> dict[str, Any]:
    """Print what PPO takes of GRPO."""
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
    return {"ppo": ppo / grpo, "ppo_without_sampling": update}


def references(model: ModelFolder, samples: list[Sample], *, rounds: int) -> dict[str, Any]:
    """Print what a reference costs: time of its pass, and parameters in memory, as a model and beside adapters."""
    batches = pack(samples, token_budget=4096)
    full, adapted = learner(model, {"name": "policy"}), learner(model, {"name": "policy"}, trainable="lora")
    frozen = learner(model, None)
    parts = {
        "update": updates(full, batches, samples),
        "reference": lambda: frozen.logprobs(batches),
        "LoRA update": updates(adapted, batches, samples),
        "LoRA reference": lambda: adapted.base_logprobs(batches),
    }
    found = paired(parts, rounds=rounds)
    times = {name: statistics.median(seconds) for name, seconds in found.items()}
    weights = {"full": (full, frozen), "LoRA": (adapted,)}
    held = {
        name: sum(p.numel() for one in models for p in one._backend.model.parameters())
        for name, models in weights.items()
    }
    print("\n| | update | the reference's pass | of the update | parameters of both |\n|---|---|---|---|---|")
    for name, prefix in (("full", ""), ("LoRA", "LoRA ")):
        update, passed = times[f"{prefix}update"], times[f"{prefix}reference"]
        print(f"| {name} | {1e3 * update:.0f} ms | {1e3 * passed:.0f} ms | {passed / update:.2f} | {held[name]:,} |")
    return {"reference_pass": times["reference"] / times["update"], "parameters": held}


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


def learner(model: ModelFolder, loss: dict[str, Any] | None, *, trainable: str = "full") -> Learner:
    """One that trains with a loss; a frozen one without."""
    role = LearnerRole(
        model=model,
        loss=None if loss is None else build_component("rlhf.losses", loss, "loss"),
        cfg=learners.Config(trainable=build_component("rlhf.models.trainable", trainable, "trainable")),
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
    """Random answers to random prompts, two and two as pairs, with every stream near what the new model says."""
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
                    unit=f"{prompt}/{sample // 2}",
                    label=float(sample % 2 == 0),
                    anchor=0.0,
                    advantages=(rng.uniform(-1, 1),) * tokens,
                    old_logprobs=stream(-3.0, -2.8),
                    rollout_logprobs=stream(-3.0, -2.8),
                    ref_logprobs=stream(-3.0, -2.8),
                    values=stream(0.0, 1.0),
                    returns=stream(0.0, 1.0),
                    topk_ids=(tuple(range(5)),) * tokens,
                    topk_logprobs=((-2.0,) * 5,) * tokens,
                )
            )
    return out


if __name__ == "__main__":
    sys.exit(main())
