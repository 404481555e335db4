"""Who may teach, and what is made of what a teacher thinks of sampled tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_model
import torch
from batches import group

from rlhf.core.errors import ConfigError, DataError
from rlhf.core.training import Sample, TopK
from rlhf.data import topk
from rlhf.loops import teacher
from rlhf.loops.teacher import LikeliestConfig, TeacherConfig
from rlhf.models import tokenizers

STUDENT = tokenizers.train_char(["ä"])


def test_a_teacher_has_the_same_tokens() -> None:
    cfg = TeacherConfig(path="big")
    teacher.check(cfg, STUDENT, tokenizers.train_char(["ä"]), where="rl.teacher")
    teacher.check(cfg, STUDENT, None, where="rl.teacher")
    with pytest.raises(DataError, match=r"rl\.teacher\.path.*2 of \d+ differ, as 'ä', 102 here and None there"):
        teacher.check(cfg, STUDENT, tokenizers.train_char(["ö"]), where="rl.teacher")


def test_a_file_was_written_for_the_same_tokens(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    sample, said = Sample(id="a", tokens=(7, 8), target_start=1), TopK(torch.tensor([[1]]), torch.tensor([[-0.1]]))
    for tokenizer, differs in ((STUDENT, False), (tiny_model.tokenizer(), True)):
        topk.write(path, [sample], [said], origin={"vocabulary": topk.vocabulary(tokenizer)})
        cfg = LikeliestConfig(path=str(path))
        assert cfg.from_file and teacher.path_of(cfg, needed=True, stages=[]) is None
        if differs:
            with pytest.raises(DataError, match="written for another vocabulary"):
                teacher.check(cfg, STUDENT, None, where="sft.teacher")
        else:
            teacher.check(cfg, STUDENT, None, where="sft.teacher")


def test_there_are_no_more_likeliest_tokens_than_tokens() -> None:
    with pytest.raises(ConfigError, match=r"sft\.teacher\.k: there are only 103 tokens"):
        teacher.check(LikeliestConfig(path="big", k=104), STUDENT, None, where="sft.teacher")
    with pytest.raises(ConfigError, match="say nothing"):
        LikeliestConfig(k=0)


def test_a_stage_is_no_folder() -> None:
    assert teacher.path_of(TeacherConfig(path="sft"), needed=True, stages=["sft"]) is None
    assert teacher.path_of(TeacherConfig(path="big"), needed=True, stages=["sft"]) == "big"
    assert teacher.path_of(TeacherConfig(path="big"), needed=False, stages=["sft"]) is None


def test_gaps_are_of_the_policy_or_of_its_sampler() -> None:
    taught = {"0-0-sums-1-0": (-1.0, -2.0)}
    [found] = teacher.compared([group(1.0, None)], taught, None)
    assert found.teacher_gaps_GT == ((0.5, 1.5), (0.0, 0.0)), "the sampler gave -0.5 to each token"
    assert teacher.reverse_kl([found], taught).value == 1.0, "what is not trained on does not count"
    [found] = teacher.compared([group(1.0)], taught, {"0-0-sums-1-0": (-1.0, -1.0)})
    assert found.teacher_gaps_GT == ((0.0, 1.0),)
