"""The matmul peak of this machine, as torch reaches it: what shares of the peak are measured against.

    python benchmarks/peak.py [--threads N] [--dtype float32] [--device cpu]

Runs for a few seconds. The best of several rounds counts: a peak is what the machine can do when nothing disturbs it.
"""

from __future__ import annotations

import argparse
import os
import time

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: every core")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--size", type=int, default=2048, help="rows and columns of the matrices; 8192 for a GPU")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    peak = measure(threads=args.threads, dtype=args.dtype, size=args.size, device=args.device)
    print(f"{peak / 1e9:,.0f} GFLOP/s in {args.dtype} on {args.device}, {args.threads} threads")


def measure(*, threads: int, dtype: str = "float32", size: int = 2048, rounds: int = 12, device: str = "cpu") -> float:
    """FLOP/s of a square matmul; leaves torch with this number of threads."""
    torch.set_num_threads(threads)
    a, b = (torch.randn(size, size, device=device).to(DTYPES[dtype]) for _ in range(2))
    out = torch.empty_like(a)

    def once() -> float:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    return 2 * size**3 / min(once() for _ in range(rounds))


if __name__ == "__main__":
    main()
