"""Facts are what this machine says, and nothing that hangs or crashes takes the doctor with it."""

from __future__ import annotations

import os
import socket
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from rlhf.doctor import look
from rlhf.doctor.findings import Torch


def test_an_import_that_works_says_what_it_printed() -> None:
    done = look.probe("print(6 * 7)")
    assert (done.error, done.output.strip()) == ("", "42") and done.seconds > 0


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError('operator nms')", "RuntimeError: operator nms"),
        ("import os; os.kill(os.getpid(), 11)", "killed by signal 11"),
        ("import os; os._exit(3)", "no message"),
        ("import time; time.sleep(60)", "not done after 1 s"),
    ],
    ids=["raises", "crashes", "ends", "hangs"],
)
def test_an_import_that_fails_is_an_error_and_no_more(code: str, error: str) -> None:
    assert look.probe(code, timeout_s=1.0 if "sleep" in code else 30.0).error == error


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    told = look._torch(look.probe(look.TORCH).output)
    assert told.cuda == (torch.version.cuda or "") and len(told.gpus) == torch.cuda.device_count()
    assert told.gloo


def test_what_torch_prints_are_the_fields_of_its_facts() -> None:
    printed = '{"cuda": "13.0", "gpus": [{"name": "x", "total": 2, "free": 1, "bf16": true}], "error": "", "nccl": "2"'
    told = look._torch("a warning\n" + printed + ', "gloo": true}')
    assert told.gpus[0].free == 1 and told.nccl == "2"
    assert {field.name for field in fields(Torch)} == {"cuda", "gpus", "error", "nccl", "gloo"}


def test_the_machine_is_this_one(tmp_path: Path) -> None:
    found = look.machine(tmp_path / "not" / "yet" / "there")
    assert found.cores == len(os.sched_getaffinity(0))
    assert 0 < found.memory_available <= found.memory
    assert found.here_free > 0 and found.here.startswith(str(tmp_path))
    assert 0 < found.files_soft <= found.files_hard
    assert found.shm > 0 or not Path("/dev/shm").is_dir()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"max": "150000 100000"}, 1.5),
        ({"max": "max 100000"}, None),
        ({"quota": "50000", "period": "100000"}, 0.5),
        ({"quota": "-1", "period": "100000"}, None),
        ({}, None),
    ],
    ids=["v2", "v2 without limit", "v1", "v1 without limit", "no groups"],
)
def test_the_quota_of_a_container_is_read_from_either_kind_of_control_groups(
    files: dict[str, str], cores: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    there = {"quota": (str(tmp_path / "max"), str(tmp_path / "quota")), "period": (str(tmp_path / "period"),)}
    monkeypatch.setattr(look, "CGROUPS", look.CGROUPS | there)
    assert look._quota() == cores


def test_a_ray_that_listens_is_reached_and_one_that_does_not_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert look.network({"RAY_ADDRESS": address}).ray_address == ""
    assert "refused" in look.network({"RAY_ADDRESS": address}).ray_address
    assert look.network({"RAY_ADDRESS": "auto"}).ray_address == ""
    assert look.network({}).loopback == ""


def test_ray_s_token_file_is_looked_for_at_home(tmp_path: Path) -> None:
    assert look.network({"HOME": str(tmp_path)}).ray_token == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert look.network({"HOME": str(tmp_path)}).ray_token == str(tmp_path / ".ray" / "auth_token")


def test_the_sandbox_is_that_of_a_real_worker() -> None:
    held = look.sandbox()
    assert held.error == "" and held.network.split(":")[0] in ("isolated", "open")


def test_our_own_requirements_come_from_the_project_beside_the_code() -> None:
    found = look.requirements({"torch": "2.13.0"})
    assert any(text.startswith("omegaconf") for text in found["rlhf"]) and "torch" in found
