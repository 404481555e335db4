#!/usr/bin/env bash
# Makes the pictures of README.md from a finished quickstart, and that of docs/budget.md where the
# sweeps that it names have been run: bash docs/make_pictures.sh [RUN [SWEEPS]]
# Needs the project installed (launch/local.sh does that) and Chromium for the screenshot.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
run="${1:-$root/runs/quickstart}"
sweeps="${2:-$root/sweeps}"
python="${RLHF_VENV:-$root/.venv}/bin/python"
mkdir -p "$root/docs/pictures"

"$python" - "$run" "$root/docs/pictures/quickstart.svg" <<'PY'
import sys
from pathlib import Path

from rlhf.report.curves import write_curve

write_curve(Path(sys.argv[1]), Path(sys.argv[2]))
PY

if [[ -e "$sweeps/sums/time_to_target" && -e "$sweeps/noisier/time_to_target" ]]; then
    "$python" -m rlhf.cli profile "sums=$sweeps/sums/time_to_target" "noisier=$sweeps/noisier/time_to_target" \
        --after sft --picture "$root/docs/pictures/profile.svg"
else
    echo "no picture of profiles: the sweeps in docs/budget.md have not been run in $sweeps" >&2
fi

profile="$(mktemp -d)"
trap 'rm -rf "$profile"' EXIT
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$profile" \
    --screenshot="$root/docs/pictures/report.png" --window-size=1200,1750 "file://$(realpath "$run")/report.html"
