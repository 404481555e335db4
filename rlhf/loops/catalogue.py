"""What ships: the tasks and the components of every slot, read from the files themselves. For `rlhf tasks` and
`rlhf components`."""

from __future__ import annotations

import dataclasses
from types import ModuleType

from rich.console import Console
from rich.table import Table

from rlhf.core import component, config

SLOTS = {
    "task": "rlhf.tasks",
    "rewards": "rewards",
    "engine": "rollout",
    "runtime": "rlhf.runtime",
    "backend": "rlhf.learner.backends",
    "trainable": "rlhf.models.trainable",
    "sampler": "rollout.samplers",
    "filters": "rollout.filters",
    "examples": "rlhf.data.examples",
    "transforms": "rlhf.data.transforms",
    "curriculum": "rlhf.data.curricula",
    "build": "rlhf.data.build",
    "advantage": "rlhf.advantages",
    "loss": "rlhf.losses",
    "corpus": "rlhf.lab.corpora",
}
"""Config key to package; a new file in a package is a new component."""


def show_tasks() -> None:
    """Print every task with what it is and its keys."""
    console = Console()
    for name in component.names(SLOTS["task"]):
        module = component.resolve(SLOTS["task"], name, where="task.name")
        console.print(f"[bold]{name}[/bold]  {module.DESCRIPTION}")
        console.print(f"  default rewards: {', '.join(module.REWARDS) or 'those of its parts'}", highlight=False)
        console.print(_keys(module))


def show_components() -> None:
    """Print every component by slot, with the first line of its docstring and its keys."""
    console = Console()
    for slot, package in SLOTS.items():
        table = Table("name", "what it is", "keys", title=f"{slot}  ({package})", title_justify="left", expand=True)
        for name in component.names(package):
            module = component.resolve(package, name, where=f"{slot}.name")
            headline = (module.__doc__ or "").strip().splitlines()[0]
            keys = ", ".join(f.name for f in dataclasses.fields(module.Config))
            table.add_row(name, headline, keys)
        console.print(table)


def _keys(module: ModuleType) -> Table:
    table = Table("key", "default", box=None, padding=(0, 2))
    for field in dataclasses.fields(module.Config):
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        else:
            default = "required"
        table.add_row(field.name, str(config.to_tree(default)))
    return table
