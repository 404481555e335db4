"""Seeds are functions of names: pinned, so that recorded samples can be made again by later versions."""

from __future__ import annotations

import hashlib

from rlhf.core.seeding import derive_seed, trajectory_id


def test_a_seed_is_the_hash_of_its_name() -> None:
    digest = hashlib.sha256(b"7\x1fsample\x1f0-1-sums-3-2").digest()
    assert derive_seed(7, "sample", "0-1-sums-3-2") == int.from_bytes(digest[:8], "big") // 2
    assert derive_seed(0, "prompts", 4) == derive_seed(0, "prompts", "4")


def test_seeds_fit_63_bits_and_differ() -> None:
    seeds = {derive_seed(seed, "sample", step, index) for seed in range(3) for step in range(20) for index in range(20)}
    assert len(seeds) == 1200
    assert all(0 <= seed < 2**63 for seed in seeds) and max(seeds) > 2**62


def test_names_do_not_run_together() -> None:
    assert derive_seed(0, "a", "bc") != derive_seed(0, "ab", "c") != derive_seed(0, "abc")
    assert derive_seed(1, "2") != derive_seed(12)


def test_a_trajectory_is_named_after_run_step_prompt_and_index() -> None:
    assert trajectory_id(3, 41, "sums-17~1", 5) == "3-41-sums-17~1-5"
