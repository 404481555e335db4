"""Peak memory and time of log-probs, forward and backward: in chunks, as we do it, against materialised logits.

    python benchmarks/logprob_memory.py [--tokens 4096] [--vocab 131072] [--chunk-mib 64] [--threads N]

Each variant runs in a process of its own, on a one-layer model that is small besides its output head, with a policy
gradient as its loss. The peak is what the process grew by while doing it (Linux only). At the default size the
materialised variant needs about 10 GiB; both together take one or two minutes. Exit status 1 when the ratio misses its
target.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

TARGET = 1 / 3
GIB = 2**30
PROMPT, SEQUENCES = 8, 8
HIDDEN = 64


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One variant."""

    peak_bytes: int
    seconds: float
    loss: float
    grad_norm: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096, help="target tokens")
    parser.add_argument("--vocab", type=int, default=131072)
    parser.add_argument("--chunk-mib", type=int, default=64, help="as learner.chunk_mib")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: every core")
    parser.add_argument("--only", type=int, metavar="MIB", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only is not None:
        print(json.dumps(asdict(measure(args.only, tokens=args.tokens, vocab=args.vocab, threads=args.threads))))
        return 0
    chunked, whole = (variant(mib, sys.argv[1:]) for mib in (args.chunk_mib, 0))
    ratio = chunked.peak_bytes / whole.peak_bytes
    print(f"{args.tokens} target tokens x {args.vocab} vocabulary, float32, {args.threads} threads\n")
    print("| logits | peak memory | time | loss | gradient norm |\n|---|---|---|---|---|")
    for name, out in ((f"chunks of {args.chunk_mib} MiB", chunked), ("materialised", whole)):
        print(
            f"| {name} | {out.peak_bytes / GIB:.2f} GiB | {out.seconds:.1f} s | {out.loss:.6f} | {out.grad_norm:.6f} |"
        )
    print(f"\nmemory ratio {ratio:.3f} (target below {TARGET:.3f}), time ratio {chunked.seconds / whole.seconds:.2f}")
    return 0 if ratio < TARGET else 1


def variant(chunk_mib: int, arguments: list[str]) -> Measured:
    """Measure in a fresh process."""
    command = [sys.executable, __file__, *arguments, "--only", str(chunk_mib)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout))


def measure(chunk_mib: int, *, tokens: int, vocab: int, threads: int) -> Measured:
    """Forward and backward over a packed batch with `tokens` targets."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.core.sampling import Transforms
    from rlhf.core.training import Sample
    from rlhf.data.packing import pack
    from rlhf.models.forward import ForwardSpec, forward, use_packed

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=tokens,
        tie_word_embeddings=False,
        initializer_range=HIDDEN**-0.5,
    )
    model = LlamaForCausalLM(config)
    use_packed(model, where="model")
    each = tokens // SEQUENCES
    ids = torch.randint(vocab, (SEQUENCES, PROMPT + each)).tolist()
    samples = [Sample(id=str(n), tokens=tuple(row), target_start=PROMPT) for n, row in enumerate(ids)]
    (batch,) = pack(samples, token_budget=SEQUENCES * (PROMPT + each))
    advantages_T = torch.randn(batch.num_targets)
    spec = ForwardSpec(transforms=Transforms(), chunk_mib=chunk_mib, entropy_gradient=False)

    reset_peak()
    before, start = resident("VmRSS"), time.perf_counter()
    out = forward(model, batch, spec)
    loss = -(advantages_T * out.logprobs_T).sum() / batch.num_targets
    loss.backward()
    seconds, peak = time.perf_counter() - start, resident("VmHWM") - before
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return Measured(peak_bytes=peak, seconds=seconds, loss=loss.item(), grad_norm=norm.item())


def reset_peak() -> None:
    """Make the kernel forget the peak so far. Where it is not permitted the peak is that of the whole process, which
    importing has left far below what is measured here."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        print(f"the peak cannot be reset ({error}): small sizes are not measured well", file=sys.stderr)


def resident(field: str) -> int:
    """Bytes: `VmRSS` now, `VmHWM` at the peak."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


if __name__ == "__main__":
    sys.exit(main())
