#!/usr/bin/env bash
# Checks the repository, and installs what that needs on first use.
#
#   launch/test.sh                     ruff, formatting, pyright, the verifiers' audit, all tests; fails when any does
#   launch/test.sh PYTEST-ARGUMENTS    only pytest, with these; paths are relative to the repository root
#
# Needs Python 3.11 or newer; node for pyright comes as a wheel. Environment variables: see launch/_venv.sh.
#
# The tests on real Ray, DeepSpeed, vLLM and Slurm take about half of the time; RLHF_CLUSTER=no leaves them out. Those of
# launch/slurm.sh run on a Slurm of their own, which takes root. As root on Debian or Ubuntu, where Slurm is missing, its
# packages (3 MB) are installed then; RLHF_APT=no prevents that. Where there is no Slurm or no vLLM, their tests are
# skipped and say so.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

if [ "${1-}" = -h ] || [ "${1-}" = --help ]; then
  sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 0
fi

prepare_venv test
cd "$ROOT"
python="$VENV/bin/python"
# Images set this, and then hundreds of processes compile the same files.
unset PYTHONDONTWRITEBYTECODE
# One thread: tests run beside worker processes, and with threads to spare torch waits for cores instead of computing.
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYRIGHT_PYTHON_IGNORE_WARNINGS=1

if [ $# -gt 0 ]; then
  exec "$python" -m pytest "$@"
fi

install_slurm() {
  local tool missing="" fetch=(-qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20)
  if [ "$EUID" != 0 ] || [ "${RLHF_APT:-}" = no ] || ! command -v apt-get >/dev/null; then return; fi
  for tool in slurmctld slurmd sbatch munged ip pgrep; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
  done
  if [ -z "$missing" ]; then return; fi
  echo "installing Slurm for the tests of launch/slurm.sh; missing:$missing (RLHF_APT=no prevents it)" >&2
  if ! { apt-get update "${fetch[@]}" && DEBIAN_FRONTEND=noninteractive apt-get install "${fetch[@]}" --yes \
    --no-install-recommends slurmctld slurmd slurm-client munge iproute2 procps; } >&2; then
    echo "Slurm could not be installed: the tests of launch/slurm.sh will be skipped" >&2
  fi
}

some=()
if [ "${RLHF_CLUSTER:-}" = no ]; then
  some=(-m "not cluster")
else
  install_slurm
fi
failed=""
check() {
  echo "== $*"
  "$python" -m "$@" || failed="$failed, $*"
}
check ruff check
check ruff format --check
check pyright --pythonpath "$python"
check rlhf.cli audit configs/audit/math.yaml
check rlhf.cli audit configs/audit/constraints.yaml
check rlhf.cli audit configs/audit/code.yaml
check rlhf.cli audit configs/audit/refusal.yaml
check rlhf.cli audit configs/audit/tasks.yaml
echo "== pytest"
if [ -n "$failed" ]; then
  echo "FAILED before the tests: ${failed#, }"
fi
status=0
# Two files at a time: most tests wait for processes that they start. Those of the cluster take longest and come first.
"$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20 ${some[@]+"${some[@]}"} || status=$?
if [ -n "$failed" ]; then
  exit 1
fi
exit "$status"
