#!/usr/bin/env bash
# Makes the pictures of README.md from a finished quickstart, and that of docs/budget.md where its sweep
# has been run: bash docs/make_pictures.sh [RUN [SWEEP]]
# Needs the project installed (launch/local.sh does that) and Chromium for the screenshot.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
run="${1:-$root/runs/quickstart}"
sweep="${2:-$root/sweeps/time_to_target}"
python="${RLHF_VENV:-$root/.venv}/bin/python"
mkdir -p "$root/docs/pictures"

"$python" - "$run" "$root/docs/pictures/quickstart.svg" <<'PY'
import sys
from pathlib import Path

from rlhf.report.curves import write_curve

write_curve(Path(sys.argv[1]), Path(sys.argv[2]))
PY

if [[ -e "$sweep/results.json" ]]; then
    "$python" -m rlhf.cli profile "$sweep" --picture "$root/docs/pictures/profile.svg"
else
    echo "no picture of profiles: there is no result in $sweep" >&2
fi

profile="$(mktemp -d)"
trap 'rm -rf "$profile"' EXIT
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$profile" \
    --screenshot="$root/docs/pictures/report.png" --window-size=1200,1750 "file://$(realpath "$run")/report.html"
