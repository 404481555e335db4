#!/usr/bin/env bash
# Trains on this machine, and installs what that needs on first use.
#
#   launch/local.sh                          runs configs/quickstart.yaml, into runs/quickstart
#   launch/local.sh CONFIG [key=value …]     the same as `rlhf train CONFIG key=value …`
#   launch/local.sh key=value …              the quickstart with changes
#
# Needs Python 3.11 or newer; everything else goes into a virtual environment, .venv in the repository root. It is kept
# up to date when pyproject.toml changes. RLHF_VENV, RLHF_TORCH and PIP_EXTRA_INDEX_URL: see launch/_venv.sh.
# CONFIG, the runs/ folder and paths inside a config are relative to the folder from which you call this, as with
# `rlhf train`. The number of CPU threads is the config's `threads`; by default all cores that the process may use.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

config="$ROOT/configs/quickstart.yaml"
case "${1-}" in
  -h | --help)
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  "" | *=*) ;;
  *)
    config="$1"
    shift
    ;;
esac

prepare_venv base
exec "$VENV/bin/rlhf" train "$config" "$@"
