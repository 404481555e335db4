#!/usr/bin/env bash
# Makes the pictures of docs/evaluation.md from a finished run of two stages: bash docs/make_evaluation.sh RUN
# The run shown there trains as: rlhf train configs/quickstart.yaml rl.steps=50 rl.loss.aggregate=sequence
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
run="${1:?give the folder of a finished run}"
python="${RLHF_VENV:-$root/.venv}/bin/python"
mkdir -p "$root/docs/pictures"

"$python" - "$run" <<'PY' | while read -r stage step; do
import json
import sys
from pathlib import Path

for entry in json.loads((Path(sys.argv[1]) / "summary.json").read_text())["stages"]:
    print(entry["stage"], entry["step"])
PY
    "$python" -m rlhf.cli evaluate "$run/config.yaml" model.init=null "model.path=$run/checkpoints/step_$step" \
        evaluation.samples=16 'evaluation.k=[1,2,4,8,16]' evaluation.prompts=128 evaluation.greedy=true \
        --picture "$root/docs/pictures/evaluation_$stage.png" < /dev/null
done
