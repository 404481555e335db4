"""Re-ranking looks at the largest clusters only, and scores no more than these."""

from __future__ import annotations

import pytest
from search_table import Candidate, Table, asked, chosen

from rlhf.core.errors import ConfigError
from rollout.samplers.cluster_rerank import Config

CANDIDATES: list[Candidate] = [("1", 9.0), ("2", 0.5), ("3", 0.4), ("2", 0.6), ("3", 0.8), (None, 99.0)]
"""The answers 2 and 3 have two samples each, the 1 has one."""


def test_a_rare_answer_and_one_without_are_left_out_however_good_their_score() -> None:
    table = Table(CANDIDATES)
    assert asked("cluster_rerank", table, top=2, pick="best") == "4"
    assert table.scored == ["1", "3", "2", "4"], "nothing else is paid for"
    assert chosen("cluster_rerank", CANDIDATES, top=3, pick="best") == 0


def test_the_sum_of_a_cluster_decides_and_its_best_sample_is_taken() -> None:
    assert chosen("cluster_rerank", CANDIDATES, top=2) == 4  # 1.2 against 1.1
    more: list[Candidate] = [("2", 0.5), ("3", 0.9), ("2", 0.6)]
    assert chosen("cluster_rerank", more, top=2) == 2  # 1.1 against 0.9
    assert chosen("cluster_rerank", more, top=2, pick="best") == 1
    assert chosen("cluster_rerank", more, top=1, pick="best") == 2


def test_scores_below_zero_are_shifted() -> None:
    # As they are, -1 would beat -1.2 - 0.9; from the lowest on it is 0.2 against 0 + 0.3.
    assert chosen("cluster_rerank", [("1", -1.0), ("2", -1.2), ("2", -0.9)], top=2) == 2


def test_without_scores_and_without_answers() -> None:
    assert chosen("cluster_rerank", [("1", None), ("2", None), ("2", None)]) == 1
    assert chosen("cluster_rerank", [(None, 1.0), (None, 2.0)]) == 0


def test_a_pick_that_is_not_offered() -> None:
    with pytest.raises(ConfigError, match="pick: 'bets' is not offered"):
        Config(pick="bets")
