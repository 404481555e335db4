"""The pages of the reward lab: a headline, tables of figures, and every single case that a reader should look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from rlhf.report import page
from rlhf.report.curves import PALETTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A figure of a table; `good` False marks one that falls short, None one that is not judged."""

    text: str
    good: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A table."""

    title: str
    intro: str = ""
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A case to look at: what it is, facts in one line, and texts as they are."""

    title: str
    mark: str
    """A word that says what is the matter, shown in the corner."""
    good: bool | None = None
    facts: Sequence[tuple[str, str]] = ()
    texts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Cases of one kind."""

    title: str
    intro: str = ""
    sights: Sequence[Sight]
    left_out: int = 0
    """Further ones that the page does not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPage:
    """A whole page."""

    kicker: str
    title: str
    state: str = ""
    good: bool | None = None
    intro: str = ""
    command: str
    figures: Sequence[Figures]
    galleries: Sequence[Gallery] = ()


def write(found: LabPage, path: Path) -> Path:
    """Write the page, replacing an earlier one in one move."""
    text = (
        page.environment()
        .get_template("lab.html.j2")
        .render(
            found=found,
            css=Markup(page.asset("page.css") + page.asset("sweep.css") + page.asset("lab.css")),
            palette=PALETTE,
        )
    )
    return page.write(path, text)
