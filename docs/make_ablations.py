"""Makes docs/ablations.md from the results that are committed in docs/ablations.

python docs/make_ablations.py              the page from what is committed
python docs/make_ablations.py sweeps       take over results.json of every complete sweep there first

Beside a result, NAME.md may say what was found in plain words.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rlhf.report import comparison
from rlhf.report.comparison import Comparison
from rlhf.report.sweep_page import interval
from rlhf.report.units import amount, duration

HERE = Path(__file__).parent
RESULTS = HERE / "ablations"
PAGE = HERE / "ablations.md"
INTRO = """# Ablations

Claims of papers, tried at the smallest scale: a model of a million parameters, sums or facts, three seeds or six,
minutes on two CPU cores. What holds at this scale may not at another, and the reverse; a claim that fails here is shown
as it came out.

Made by `python docs/make_ablations.py` from the results in `docs/ablations`; a test checks that the two agree.
Differences are paired by seed, and by prompt where seeds share prompts; intervals are 95 % and not widened for the
number of claims. A claim *holds* when its whole interval lies beyond the margin, *does not hold* when the whole
interval falls short of it, and is *undecided* when the interval straddles it; a claim that an arm lies *above* a number
is judged by the interval of its own mean in the same way. Time is the sum over the runs, each on
one core.
"""


def main() -> None:
    if len(sys.argv) > 1:
        take_over(Path(sys.argv[1]))
    PAGE.write_text(page(), encoding="utf-8")


def take_over(sweeps: Path) -> None:
    """Copy the results of complete sweeps of shipped files."""
    RESULTS.mkdir(exist_ok=True)
    for path in sorted(sweeps.glob("*/results.json")):
        shipped = HERE.parent / "configs" / "ablations" / f"{path.parent.name}.yaml"
        if shipped.is_file() and comparison.read(path).complete:
            shutil.copyfile(path, RESULTS / f"{path.parent.name}.json")


def page() -> str:
    """The whole page."""
    found = [comparison.read(path) for path in sorted(RESULTS.glob("*.json"))]
    overview = ["| ablation | claim | verdict |", "|---|---|---|"]
    for result in found:
        for finding in result.findings:
            claim = finding.says + (f" ({finding.arm})" if len(result.arms) > 2 else "")
            overview.append(f"| [{result.name}](#{anchor(result.title)}) | {claim} | {finding.verdict.value} |")
    return "\n".join([INTRO, *overview, "", *(section(result) for result in found)])


def section(found: Comparison) -> str:
    """One ablation."""
    lines = [f"## {found.title}", "", f"{found.source}. {found.notes}", "", f"`{found.command}`", ""]
    lines += [f"| | {' | '.join(found.metrics)} | tokens | time |", f"|---|{'---|' * (len(found.metrics) + 2)}"]
    for arm in found.arms:
        cells = [interval(arm.estimates[label]) for label in found.metrics]
        tokens, seconds = sum(m.tokens for m in arm.members), sum(m.seconds for m in arm.members)
        lines.append(f"| {arm.name} | {' | '.join(cells)} | {amount(tokens)} | {duration(seconds)} |")
    for arm in found.arms:
        if arm.differences:
            cells = [interval(arm.differences[label], signed=True) for label in found.metrics]
            lines.append(f"| {arm.name} less {found.baseline} | {' | '.join(cells)} | | |")
    lines += ["", *(f"- {finding.says or 'Claim'}: {finding.sentence}." for finding in found.findings), ""]
    read = RESULTS / f"{found.name}.md"
    lines += [f"*What was found.* {read.read_text(encoding='utf-8').strip()}", ""] if read.is_file() else []
    keys = [
        f"- `{key}`: {', '.join(f'{arm} {value}' for arm, value in row.items())}" for key, row in found.changed.items()
    ]
    metrics = "; ".join(f"{label}: {what}" for label, what in found.metrics.items())
    return "\n".join([*lines, "What was varied:", "", *keys, "", f"Metrics: {metrics}.", ""])


def anchor(title: str) -> str:
    """The name that a heading is linked by on GitHub."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


if __name__ == "__main__":
    main()
