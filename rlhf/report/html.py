"""`report.html`: one self-contained page that tells what a run did, where the time went and what to look at.

Called at the end of a run, at its checkpoints, and by hand on any run folder; a run that is still going, or was killed,
gives a page that says what is missing. The page loads nothing, so it can be mailed or opened from a disk. Everything
that comes from the run is escaped: the template escapes by default, drawings are escaped by matplotlib, and samples
travel as JSON that a script shows as text, never as markup. Size is bounded whatever the run wrote.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from rlhf.core.types import Verdict
from rlhf.report import page
from rlhf.report.curves import PALETTE
from rlhf.report.findings import Level, findings
from rlhf.report.record import Run, read_run
from rlhf.report.samples import Chosen
from rlhf.report.sections import sections
from rlhf.report.units import amount, duration

SAMPLE_BYTES = 1_800_000
"""Room for all embedded samples; texts are cut harder until they fit."""
TEXT_LIMITS = (6000, 3000, 1500, 700, 300)
"""Characters of a completion, and tokens of its log-prob view, tried in turn."""
TABLE_ROWS, CELL = 800, 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One accuracy on the headline's scale; positions are per cent of its width."""

    label: str
    mean: float
    low: float
    high: float
    n: int | None
    at: float
    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    label: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Accuracy before and after, drawn on one scale. Without a summary: the first and the latest evaluation.

    `task` names the one that it is of where there are several: the primary.
    """

    task: str
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    label: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One config key that is not what its parents say."""

    key: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigDiff:
    """`added` holds keys and values that no parent names: set by the recipe, or defaults of the schema."""

    changed: tuple[Change, ...]
    added: tuple[tuple[str, str], ...]


def write_report(run_folder: Path, *, token_text: Callable[[int], str] | None = None) -> Path:
    """Write `report.html` into a run folder, replacing an earlier one in one move.

    Args:
        run_folder: `runs/<name>`.
        token_text: a tokenizer's text of one token id; without it, log-probs are shown beside token ids.

    Raises:
        RunFolderError: there is no such folder.
    """
    run = read_run(run_folder)
    metrics = run_folder / "metrics.jsonl"
    rules = findings(run)
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(metrics.stat().st_mtime)) if metrics.is_file() else None
    text = (
        page.environment()
        .get_template("page.html.j2")
        .render(
            run=run,
            sweep=_sweep_of(run_folder),
            written=written,
            css=Markup(page.asset("page.css")),
            js=Markup(page.asset("page.js")),
            palette=PALETTE,
            headline=headline(run),
            tiles=_tiles(run),
            raised=[rule for rule in rules if rule.level in (Level.BAD, Level.WARN)],
            rules=rules,
            blind=sum(rule.level == Level.NO_DATA for rule in rules),
            sections=sections(run),
            samples=_embed(run.selection.chosen, token_text),
            verdicts=[verdict.value for verdict in Verdict],
            diff=config_changes(run.base_config, run.config) if run.base_config and run.config else None,
            config=_rows(run.config),
            environment=_rows(run.environment),
        )
    )
    return page.write(run_folder / "report.html", text)


def _sweep_of(run_folder: Path) -> str | None:
    """Name of the sweep that a run belongs to, whose page lies two folders up; None for any other run."""
    home = run_folder.resolve().parents[1]
    return home.name if run_folder.resolve().parent.name == "runs" and (home / "arms").is_dir() else None


def headline(run: Run) -> Headline | None:
    """Base and final accuracy on one scale; None when nothing was evaluated."""
    summary, task = run.summary, run.tasks[0] if len(run.tasks) > 1 else ""
    found: list[tuple[str, float, float, float, int | None]] = []
    if summary is not None:
        for label, accuracy in (("before", summary.base), ("after", summary.final)):
            if accuracy is not None:
                found.append((label, accuracy.mean, accuracy.low, accuracy.high, accuracy.n))
    else:
        own = [e.points for e in run.evaluations() if e.what == "sampled_accuracy" and task in ("", e.task)]
        points = next(iter(own), ())
        found = [(f"step {p.step}", p.mean, p.low, p.high, None) for p in (*points[:1], *points[1:][-1:])]
    if not found:
        return None
    start, step, count = _scale(min(f[2] for f in found), max(f[3] for f in found))
    end = start + step * count

    def at(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2)

    bars = tuple(
        Bar(label=label, mean=mean, low=low, high=high, n=n, at=at(mean), left=at(low), width=at(high) - at(low))
        for label, mean, low, high, n in found
    )
    ticks = tuple(Tick(label=f"{100 * (start + i * step):.0f}%", at=100 * i / count) for i in range(count + 1))
    return Headline(task=task, bars=bars, ticks=ticks, remark=_remark(found))


def config_changes(base: Mapping[str, Any], own: Mapping[str, Any]) -> ConfigDiff:
    """How a flat resolved config differs from its flat parents, in the order of the resolved config.

    A component given by its bare name (`rl.loss: policy`) equals its resolved form (`rl.loss.name: policy`).
    """
    named = {f"{key}.name": value for key, value in base.items() if isinstance(value, str) and key not in own}
    parents = {key: value for key, value in base.items() if f"{key}.name" not in named} | named
    differing = [key for key, value in own.items() if key in parents and parents[key] != value]
    changed = [Change(key=key, before=_cell(parents[key]), after=_cell(own[key])) for key in differing]
    gone = [Change(key=key, before=_cell(value), after="(none)") for key, value in parents.items() if key not in own]
    added = _rows({key: value for key, value in own.items() if key not in parents})
    return ConfigDiff(changed=(*changed, *gone), added=tuple(added))


def _remark(found: Sequence[tuple[str, float, float, float, int | None]]) -> str:
    if len(found) < 2:
        return "one evaluation so far"
    (_, before, before_low, before_high, _), (_, after, after_low, after_high, _) = found
    apart = before_high < after_low or after_high < before_low
    gain = f"{100 * (after - before):+.1f} points"
    return f"{gain}; the 95% intervals {'do not overlap' if apart else 'overlap'}"


def _scale(low: float, high: float) -> tuple[float, float, int]:
    """Start, tick distance and number of ticks' gaps of an axis within [0, 1] that is at least 10 points wide."""
    low, high = max(0.0, min(low, high - 0.1)), min(1.0, max(high, low + 0.1))
    step = next(s for s in (0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 6)
    start = math.floor(low / step + 1e-9) * step
    return start, step, max(1, math.ceil((high - start) / step - 1e-9))


def _tiles(run: Run) -> list[Tile]:
    summary = run.summary
    steps = summary.steps if summary else run.last_step
    tokens = summary.tokens if summary else sum(run.values("perf/tokens"))
    seconds = summary.seconds.get("total") if summary else sum(run.values("timing_s/step"))
    tiles = [
        Tile(label="steps", value="–" if steps is None else f"{steps:,}"),
        Tile(label="tokens", value=amount(tokens) if tokens else "–"),
        Tile(label="scored samples", value=amount(run.selection.total)),
        Tile(label="time", value=duration(seconds) if seconds else "–"),
    ]
    if summary and summary.peak_memory_bytes > 0:
        tiles.append(Tile(label="peak memory", value=f"{summary.peak_memory_bytes / 2**30:.2f} GiB"))
    return tiles


def _embed(chosen: Sequence[Chosen], token_text: Callable[[int], str] | None) -> Markup:
    """The samples as JSON that cannot end the script element it stands in, within `SAMPLE_BYTES`."""
    text = ""
    for limit in TEXT_LIMITS:
        rows = [_sample_row(entry, limit, token_text) for entry in reversed(chosen)]
        text = json.dumps(rows, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
        if len(text.encode(errors="backslashreplace")) <= SAMPLE_BYTES:
            break
    return Markup(text)


def _sample_row(entry: Chosen, limit: int, token_text: Callable[[int], str] | None) -> dict[str, Any]:
    sample = entry.sample
    shown = min(len(sample.tokens), len(sample.logprobs), limit // 4)
    return {
        "why": entry.why,
        "id": sample.id,
        "step": sample.step,
        "stage": sample.stage,
        "task": sample.task,
        "prompt": _cut(sample.prompt, limit // 2),
        "text": _cut(sample.text, limit),
        "gold": _cut(sample.gold, limit // 4),
        "extracted": None if sample.extracted is None else _cut(sample.extracted, limit // 4),
        "stop": sample.stop,
        "verdict": sample.verdict,
        "reason": _cut(sample.reason, CELL),
        "value": sample.value,
        "advantage": sample.advantage,
        "breakdown": sample.breakdown,
        "version": sample.policy_version,
        "length": len(sample.tokens),
        "tokens": [str(t) if token_text is None else token_text(t) for t in sample.tokens[:shown]],
        "logprobs": [round(lp, 2) if math.isfinite(lp) else None for lp in sample.logprobs[:shown]],
        "decoded": token_text is not None,
    }


def _cut(text: str, limit: int) -> str:
    """Head and tail of a long text: the answer stands at the end."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters left out …]\n{text[-tail:]}"


def _rows(flat: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [(key, _cell(value)) for key, value in list((flat or {}).items())[:TABLE_ROWS]]


def _cell(value: object) -> str:
    text = "null" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= CELL else f"{text[:CELL]}…"
