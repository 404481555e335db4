"""The dataset that a generate stage writes, `data/<stage>.jsonl`: step by step, or, where the builder has the last word
on all rows together, from `data/<stage>.found.jsonl` with the last step.

Both are logs of the run: a checkpoint knows their lengths, and a resumed run cuts them back to these. The last word
follows from the rows, so that a run that is killed while it is written writes the same again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rlhf.core.component import Component
from rlhf.core.modules import FinishingBuilderModule
from rlhf.core.run_folder import append_lines, read_lines, write_whole
from rlhf.core.types import Json
from rlhf.loops.origin import Origin


class Dataset:
    """Rows on their way to a file.

    Args:
        folder: of the run's datasets; made here.
        build: what makes the rows.
        origin: where they come from.
    """

    def __init__(self, folder: Path, *, build: Component, origin: Origin) -> None:
        self._build, self._origin = build, origin
        self._finishes = "finish" in vars(build.module)
        self._target = folder / f"{origin.stage}.jsonl"
        self._steps = folder / f"{origin.stage}.found.jsonl" if self._finishes else self._target
        folder.mkdir(exist_ok=True)
        for path in (self._target, self._steps):
            path.touch()

    def append(self, rows: Sequence[dict[str, Json]], *, step: int) -> None:
        """Add the rows of a step."""
        append_lines(self._steps, [row | {"origin": self._origin.of_step(step)} for row in rows])

    def end(self) -> None:
        """All rows are there: to be called before the checkpoint of the last step."""
        if not self._finishes:
            return
        builder = cast(FinishingBuilderModule, self._build.module)
        rows = builder.finish(list(read_lines(self._steps)), self._build.config)
        write_whole(self._target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
