"""What a config needs is read from the imports of the components it chooses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.doctor import needs
from rlhf.doctor.findings import Needs
from rlhf.doctor.packages import EXTRAS
from rlhf.loops import settings

ROOT = Path(__file__).parents[2]
ENGINE = """
'''An engine that another file of its package helps.'''
from dataclasses import dataclass
from {package} import helper

@dataclass(frozen=True, kw_only=True)
class Config:
    '''Nothing.'''

def build(cfg, spec):
    import {direct}
    return helper
"""


def of(*overrides: str, config: str = "quickstart") -> Needs:
    return needs.of(settings.read(ROOT / "configs" / f"{config}.yaml", overrides), EXTRAS)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's package: an engine that imports ray, and by way of its neighbour vllm and again itself."""
    folder = tmp_path / "needy"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "engine.py").write_text(ENGINE.format(package="needy", direct="ray"))
    (folder / "helper.py").write_text(
        "def run():\n    from vllm.entrypoints import llm\n    from needy import engine\n"
    )
    (folder / "bystander.py").write_text("import deepspeed\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "needy"
    for name in [name for name in sys.modules if name.split(".")[0] == "needy"]:
        del sys.modules[name]


def test_the_quickstart_needs_nothing_beyond_the_base() -> None:
    found = of()
    assert found.packages == {} and not found.gpu and found.nodes == 1 and not found.cluster
    assert found.offline_model == "model.init=tiny"


def test_a_component_needs_what_its_file_and_the_files_of_its_package_import(package: str) -> None:
    found = of(f"engine.name={package}.engine")
    key = f"engine.name={package}.engine"
    assert found.packages == {"ray": key, "vllm": key}


def test_the_cluster_runtime_needs_ray_and_says_how_much_shared_memory() -> None:
    found = of("runtime.name=ray", "runtime.nodes=2", "runtime.object_store_mib=100")
    assert found.packages == {"ray": "runtime.name=ray"} and found.cluster
    assert found.nodes == 2 and found.object_store == 100 * 2**20


def test_a_ray_that_is_joined_has_its_own_shared_memory_and_gpus() -> None:
    here, there = (
        of("runtime.name=ray", "runtime.gpus='1'"),
        of("runtime.name=ray", "runtime.gpus='1'", "runtime.address=auto"),
    )
    assert (here.gpu, there.gpu) == ("runtime.gpus=1", "") and there.object_store is None


def test_components_of_stages_are_looked_at_too(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "loss.py").write_text(
        (ROOT / "rlhf" / "losses" / "ce.py").read_text() + "\n\ndef later():\n    import deepspeed\n"
    )
    found = of(f"sft.loss.name={package}.loss")
    assert found.packages == {"deepspeed": f"sft.loss.name={package}.loss"}


def test_data_from_the_hub_need_datasets_and_data_from_a_file_do_not(tmp_path: Path) -> None:
    assert list(of(config="gsm8k_grpo").packages) == ["datasets"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    assert of(f"task.train={rows}", f"task.test={rows}", config="gsm8k_grpo").packages == {}


def test_a_device_that_is_named_is_needed() -> None:
    assert of("device=cuda").gpu == "device=cuda"
    assert of("device=cpu").gpu == ""


def test_a_model_of_the_hub_is_not_on_this_machine_and_a_folder_is(tmp_path: Path) -> None:
    assert of("model.init=null", "model.path=some/model").offline_model == ""
    assert of("model.init=null", f"model.path={tmp_path}").offline_model == f"model.path={tmp_path}"
