"""Shared by all integration tests: a launcher of commands, and finished runs that nobody may change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Shell, tree, write_config


@pytest.fixture(scope="session")
def shell() -> Iterator[Shell]:
    with Shell() as started:
        yield started


@pytest.fixture(scope="session")
def finished(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of `tiny.yaml`; the folder above its `runs` holds the config."""
    cwd = tmp_path_factory.mktemp("finished")
    shell.run("train", write_config(cwd, tree() | {"run": {"name": "tiny"}}), cwd=cwd).ok()
    return cwd / "runs" / "tiny"


@pytest.fixture(scope="session")
def learnt(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `learn.yaml`, which takes ten seconds and learns something."""
    cwd = tmp_path_factory.mktemp("learnt")
    shell.run("train", write_config(cwd, tree("learn")), cwd=cwd).ok()
    return cwd / "runs" / "learn"
