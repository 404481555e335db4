"""The examples of README.md are real: their files are taken from the page and run, their commands are checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.loops import settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = re.findall(r"```python\n# file: (\S+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^rlhf train ((?:.*\\\n)*.*)$", README, flags=re.MULTILINE)
SMALL = [
    "sft.steps=2",
    "rl.steps=1",
    "rl.prompts_per_step=2",
    "rl.samples_per_prompt=2",
    "sampling.max_tokens=8",
    "evaluation.prompts=2",
    "evaluation.samples=1",
    "evaluation.k=[1]",
]


def test_the_page_has_the_three_examples() -> None:
    assert [name for name, _ in FILES] == ["mylab/brevity.py", "mylab/doubling.py", "mylab/reinforce.py"]
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_trains(command: str, tmp_path: Path) -> None:
    for name, content in FILES:
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(content, encoding="utf-8")
    config, *overrides = command.replace("\\\n", " ").split()
    run = subprocess.run(
        [sys.executable, "-m", "rlhf.cli", "train", str(ROOT / config), *overrides, *SMALL],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    [summary] = tmp_path.glob("runs/*/summary.json")
    assert summary.exists()


@pytest.mark.parametrize("link", re.findall(r"\]\(((?:configs|docs)/[^)]+)\)", README))
def test_what_the_page_links_to_exists(link: str) -> None:
    assert (ROOT / link).exists()


def test_recipes_named_on_the_page_load() -> None:
    for name in re.findall(r"configs/(\w+)\.yaml", README):
        settings.read(ROOT / "configs" / f"{name}.yaml")
