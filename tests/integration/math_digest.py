"""A hash of the verdicts of our tables, printed: started by other Pythons and with other hash seeds, so that it needs
nothing but the verifier."""

from __future__ import annotations

import hashlib

from math_tables import ACCEPTED, GOLDS, REJECTED

from rewards.math import verify


def main() -> None:
    pairs = [pair for table in (ACCEPTED, REJECTED) for rows in table.values() for pair in rows]
    pairs += [(a, b) for a in GOLDS for b in (*GOLDS, r"\{3, 1, 2\}", "1 + 2x + x^2", "12.5")]
    outs = [verify(f"\\boxed{{{prediction}}}", gold) for prediction, gold in pairs]
    lines = [f"{out.value} {out.verdict} {out.reason} {out.extracted!r}" for out in outs]
    print(hashlib.sha256("\n".join(lines).encode()).hexdigest(), len(lines))


if __name__ == "__main__":
    main()
