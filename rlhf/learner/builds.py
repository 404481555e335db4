"""Extensions that torch compiles on first use: by one process at a time, also after one was killed while it did.

torch marks a build by a file that its own process removes, and waits for that without end: after a kill all later
processes would wait, too. A lock of the kernel's goes with its holder. So whoever holds ours knows that a mark was left
behind, and removes it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.utils import cpp_extension


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Be the only process that builds an extension; waits for another one that does."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for mark in (root / name / "lock", *root.glob(f"*/{name}/lock")):
            mark.unlink(missing_ok=True)
        yield
