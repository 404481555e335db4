"""The command: look, check, print, and say by the exit code whether something is broken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf.core.errors import UserError
from rlhf.doctor import devices, host, look, network, packages
from rlhf.doctor.findings import Check, Facts, Finding, Level, Needs

SECTIONS: Mapping[str, Sequence[Check]] = {
    "packages": packages.CHECKS,
    "devices": devices.CHECKS,
    "machine": host.CHECKS,
    "network": network.CHECKS,
}
MARKS = {
    Level.OK: ("✓", "green"),
    Level.NOTE: ("·", "dim"),
    Level.WARNING: ("!", "yellow"),
    Level.PROBLEM: ("✗", "bold red"),
}
INDENT = 21
"""Columns before the text of a finding."""


def run(config: Path | None, overrides: Sequence[str], console: Console | None = None) -> int:
    """Examine this installation and machine, for a config or for local runs.

    Returns:
        1 when there is a problem, else 0.

    Raises:
        UserError: the config cannot be used.
    """
    console = console or Console()
    with console.status("looking at packages and this machine; imports take up to half a minute"):
        needs, folder = (Needs(), Path("runs")) if config is None else _of(config, overrides)
        facts = look.facts(needs, folder=folder)
    findings = examine(facts)
    show(findings, console)
    console.print(summary(findings, config), highlight=False, markup=False)
    return int(any(finding.level == Level.PROBLEM for found in findings.values() for finding in found))


def examine(facts: Facts) -> dict[str, list[Finding]]:
    """All findings, by section."""
    found = {title: [check(facts) for check in checks] for title, checks in SECTIONS.items()}
    return {title: [finding for finding in entries if finding is not None] for title, entries in found.items()}


def show(findings: Mapping[str, Sequence[Finding]], console: Console) -> None:
    """One line per finding where the terminal is wide enough, and what to do below it."""
    for title, found in findings.items():
        console.print(Text(title, style="bold"))
        table = Table.grid(padding=(0, 1))
        table.add_column(width=2, justify="right")
        table.add_column(width=INDENT - 5, no_wrap=True)
        table.add_column(overflow="fold")
        for finding in found:
            mark, style = MARKS[finding.level]
            text = Text(finding.found, style="dim" if finding.level == Level.NOTE else "")
            table.add_row(Text(mark, style=style), Text(finding.title), text)
            if finding.fix:
                style = "dim" if finding.level == Level.NOTE else "cyan"
                table.add_row("", "", Text(f"→ {finding.fix}", style=style))
        console.print(table)
        console.print()


def summary(findings: Mapping[str, Sequence[Finding]], config: Path | None) -> str:
    """The last line."""
    levels = Counter(finding.level for found in findings.values() for finding in found)
    purpose = "runs on this machine" if config is None else str(config)
    counts = ", ".join(
        f"{levels[level]} {level.value}{'s' if levels[level] > 1 else ''}"
        for level in (Level.PROBLEM, Level.WARNING)
        if levels[level]
    )
    if levels[Level.PROBLEM]:
        return f"{counts}: mend the problems (✗) before {purpose}"
    then = "" if config is None else f"; next: rlhf plan {config}"
    return f"nothing is broken for {purpose}{f' ({counts})' if counts else ''}{then}"


def _of(config: Path, overrides: Sequence[str]) -> tuple[Needs, Path]:
    """What a config needs, and where its runs go. Reading it imports torch."""
    try:
        from rlhf.doctor import needs
        from rlhf.loops import settings
    except ImportError as error:
        fix = "run `rlhf doctor` without a config: it says what is wrong with the installation"
        raise UserError(str(config), f"cannot be read: {error}", fix=fix) from error
    experiment = settings.read(config, overrides)
    return needs.of(experiment, packages.EXTRAS), Path(experiment.settings.run.folder)
