"""Every file in `configs/`: it loads and checks, restates nothing that it inherits, and stays small; those for clusters
fit the machines that they are for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2Config

from rlhf.core import config
from rlhf.lab import audit
from rlhf.loops import clean, merge, plan, plan_memory, settings
from rlhf.models import tokenizers
from rlhf.runtime.memory import GIB

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(
    path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in ("ablations", "audit", "care", "merge")
)
AUDITS = sorted((CONFIGS / "audit").glob("*.yaml"))
CLEANINGS = sorted((CONFIGS / "care").glob("*.yaml"))
MERGES = sorted((CONFIGS / "merge").glob("*.yaml"))
LOADED = {path: config.load(path) for path in FILES}
RECIPES = [path for path, loaded in LOADED.items() if "stages" in loaded.tree]
MAX_LINES = 40
GPU = ["runtime.node_gpus=1", "runtime.device_memory_gib=24"]
CPU = ["runtime.node_gpus=0"]
DESCRIBED: list[str] = []
"""The file itself says what the nodes are."""
MACHINES = [("local", GPU), ("local", CPU), ("one_node", DESCRIBED), ("eight_nodes", DESCRIBED)]
"""Files in `configs/cluster`, and what they are to run on."""
WIDE = {"num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False}
QWEN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B-Instruct": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-7B-Instruct": WIDE
    | {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28},
    "Qwen/Qwen2.5-32B-Instruct": WIDE
    | {
        "hidden_size": 5120,
        "intermediate_size": 27_648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
    },
}
"""Shapes of the models that these files train, as their config.json has them."""


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_a_recipe_loads_and_checks(path: Path) -> None:
    experiment = settings.read(path)
    assert [stage.name for stage in experiment.stages] == LOADED[path].tree["stages"]


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_the_resolved_config_of_a_recipe_reads_back_as_the_same(path: Path, tmp_path: Path) -> None:
    resolved = settings.read(path).to_yaml()
    (tmp_path / "config.yaml").write_text(resolved, encoding="utf-8")
    assert settings.read(tmp_path / "config.yaml").to_yaml() == resolved


def test_a_file_that_is_no_recipe_is_the_parent_of_one() -> None:
    parents = {parent for path in RECIPES for parent in LOADED[path].bases}
    assert set(FILES) - set(RECIPES) <= parents


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_holds_only_its_difference(path: Path) -> None:
    assert config.restated(path) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_small_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_LINES
    assert any(line.startswith("#") for line in lines), "say in a comment what the recipe is for"


def test_runs_of_different_recipes_do_not_share_a_folder() -> None:
    names = [LOADED[path].tree["run"]["name"] for path in RECIPES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", AUDITS, ids=name_of)
def test_an_audit_names_corpora_and_graders_that_there_are(path: Path) -> None:
    assert audit.read(path).corpora
    assert path.read_text(encoding="utf-8").startswith("#")


@pytest.mark.parametrize("path", MERGES, ids=name_of)
def test_a_merge_reads_and_holds_only_its_difference(path: Path) -> None:
    assert merge.read(path, ["onto=base", "models=[one,other]", "out=merged"]).factors == [0.3, 0.3]
    assert config.restated(path) == [] and path.read_text(encoding="utf-8").startswith("#")


@pytest.mark.parametrize("path", CLEANINGS, ids=name_of)
def test_a_cleaning_reads_and_holds_only_its_difference(path: Path) -> None:
    assert clean.read(path, ["data=[train.jsonl]", "against=[test.jsonl]", "out=clean"]).overlap.n
    assert config.restated(path) == [] and path.read_text(encoding="utf-8").startswith("#")


@pytest.mark.parametrize(("name", "machine"), MACHINES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_config_for_a_cluster_fits_the_machine_that_it_is_for(
    name: str, machine: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned with the shape of its model, a small tokenizer and a few problems: nothing is downloaded."""
    monkeypatch.setattr(plan_memory, "device_memory", lambda device: 32 * GIB)
    file = CONFIGS / "cluster" / f"{name}.yaml"
    model = Qwen2Config(max_position_embeddings=32_768, dtype="bfloat16", **QWEN[LOADED[file].tree["model"]["path"]])
    model.save_pretrained(tmp_path)
    tokenizers.train_char([bytes(range(32, 127)).decode()]).save_pretrained(tmp_path)
    rows = [json.dumps({"question": f"{n}? ".ljust(250, "x"), "answer": f"#### {n}"}) for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    local = [f"model.path={tmp_path}", f"task.train={tmp_path}/rows.jsonl", "task.test=null"]
    plan.check(settings.read(file, [*local, *machine]))


def test_every_config_for_a_cluster_is_planned() -> None:
    assert {path.stem for path in RECIPES if path.parent.name == "cluster"} == {name for name, _ in MACHINES}
