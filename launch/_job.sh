# shellcheck shell=bash
# Sourced by slurm.sh in a job. `run_job CONFIG [key=value …]` starts Ray on every node of the allocation and the driver
# on the first one, waits for the driver, takes Ray down again, and ends with the driver's exit code or has the job
# requeued.
#
# Invariants: this shell runs on the first node; whatever it starts is a step of the job, so that Slurm ends it with
# the job; every way out goes through `stop_ray`. When a job is cancelled, Slurm itself signals the steps: TERM is noted
# here and passed on to nobody, because srun would kill its tasks on it.

AGAIN=75       # EX_TEMPFAIL: "I saved my work, start me again"; `rlhf train` ends with it on USR1
UNAVAILABLE=69 # EX_UNAVAILABLE: Ray did not come up
USR1_KILLED=$((128 + 10))
MENDABLE=2 # what `rlhf` ends with when its user has to change something

time_is_up=0
warned=0
told_to_end=0
failed=0
ray=""
waiter=""
driver=""

run_job() {
  local status=0
  find_nodes
  share_settings
  trap on_usr1 USR1
  trap on_term TERM
  start_ray
  await_ray || status=$UNAVAILABLE
  if [ "$time_is_up" = 1 ]; then
    # Nothing was reached: when that happens again and again, the time limit is too short.
    status=$AGAIN failed=1
  elif [ "$status" = "$UNAVAILABLE" ] && [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    say "Ray came up before: this is worth another try"
    status=$AGAIN failed=1
  elif [ "$status" = 0 ] && [ "$told_to_end" = 0 ]; then
    say "Ray is up at $RAY_ADDRESS, nodes: $NODES"
    run_driver "$@" || status=$?
    say "the driver ended with $status"
    judge "$status" || status=$AGAIN
  fi
  stop_ray
  if [ "$status" = "$AGAIN" ] && [ "$told_to_end" = 0 ]; then
    requeue
  fi
  exit "$status"
}

find_nodes() {
  mapfile -t NAMES < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  NODES=${#NAMES[@]}
  if [ "${SLURMD_NODENAME:-}" != "${NAMES[0]}" ]; then
    die "job $SLURM_JOB_ID runs on ${NAMES[*]}, but this shell (of salloc?) is on $(uname -n), not in the job
  fix: leave the allocation and call this again, it submits a job; or call it in a batch script of your own"
  fi
  [ -x "$VENV/bin/ray" ] || die "$VENV has no ray; call this once outside of a job, or set RLHF_VENV"
}

# What the steps inherit. Nothing of it changes from one restart to the next that a run could depend on.
share_settings() {
  local host port start
  export SLURM_EXPORT_ENV=ALL # after `sbatch --export=NONE` the steps would not even have PATH
  export RLHF_JOB_LOGS="${RLHF_LOGS:-$PWD/slurm}/$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
  FAILURES="${RLHF_JOB_LOGS%.*}.failures"
  mkdir -p "$RLHF_JOB_LOGS" || exit 2
  start=$((SLURM_JOB_ID * 16 + ${SLURM_RESTART_COUNT:-0} * 4))
  read -r host port < <("$VENV/bin/python" "$ROOT/launch/_address.py" --host="${RLHF_HEAD_IP:-}" \
    --interface="${RLHF_IFNAME:-}" --ports="${RLHF_PORTS:-20000-31999}" --start="$start" "${NAMES[@]}") || exit 2
  export RLHF_RAY_HOST=$host RLHF_RAY_PORT=$port RLHF_RAY="$VENV/bin/ray" RLHF_RAY_TMP="${RLHF_RAY_TMP:-/tmp/rlhf}"
  case "$host" in *:*) host="[$host]" ;; esac
  export RAY_ADDRESS="$host:$port"
  # Whoever reaches an open Ray can run what he likes as this user.
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
  RAY_AUTH_TOKEN="$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
  export RAY_USAGE_STATS_ENABLED=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 PYTHONUNBUFFERED=1
  allow_files 65536
  read -ra STEP <<<"srun --overlap --cpu-bind=none ${RLHF_SRUN_ARGS:-}"
}

# Every connection of Ray takes a file, and most systems begin with 1024.
allow_files() {
  local most
  most="$(ulimit -Hn)"
  if [ "$most" = unlimited ] || [ "$most" -gt "$1" ]; then most=$1; fi
  if [ "$(ulimit -Sn)" != unlimited ] && [ "$(ulimit -Sn)" -lt "$most" ]; then ulimit -Sn "$most"; fi
}

start_ray() {
  # When one node fails, the others stay for the driver to save what it can.
  "${STEP[@]}" --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 --wait=0 --kill-on-bad-exit=0 \
    --job-name=rlhf-ray --output="$RLHF_JOB_LOGS/ray-%t.log" bash -c "$(<"$ROOT/launch/_ray_node.sh")" \
    2>"$RLHF_JOB_LOGS/srun.err" &
  ray=$!
}

await_ray() {
  [ "$time_is_up$told_to_end" = 00 ] || return 0
  watch_nodes wait "${RLHF_WAIT_S:-300}" --step="$ray"
}

# _wait_nodes.py, which signals may end early.
watch_nodes() {
  local status=0
  "$VENV/bin/python" "$ROOT/launch/_wait_nodes.py" "$1" "$RAY_ADDRESS" --logs="$RLHF_JOB_LOGS" --seconds="$2" "${@:3}" \
    "${NAMES[@]}" &
  waiter=$!
  if [ "$time_is_up$told_to_end" != 00 ]; then kill "$waiter"; fi
  await "$waiter" || status=$?
  waiter=""
  return "$status"
}

# The address is Ray's own variable, not an override: it changes with every restart, and a run's config must not.
run_driver() {
  local status=0 command
  read -ra command <<<"${RLHF_DRIVER:-}"
  [ ${#command[@]} -gt 0 ] || command=("$VENV/bin/rlhf" train)
  "${STEP[@]}" --nodes=1 --ntasks=1 --nodelist="${NAMES[0]}" --job-name=rlhf-driver \
    "${command[@]}" "$@" runtime.name=ray runtime.address=auto </dev/null &
  driver=$!
  if [ "$time_is_up" = 1 ]; then warn_driver; fi
  await "$driver" || status=$?
  driver=""
  return "$status"
}

# Whether the driver's status is the job's; otherwise the job is to run again.
judge() {
  case "$1" in
    0 | "$MENDABLE") return 0 ;;
    "$AGAIN") return 1 ;;
  esac
  if [ "$1" = "$USR1_KILLED" ] && [ "$time_is_up" = 1 ]; then
    say "USR1 killed the driver, which was not ready to heed it"
  elif [ "$told_to_end" = 1 ] || ! watch_nodes lost 10; then
    return 0
  fi
  failed=1
  return 1
}

stop_ray() {
  local step="" tenths=0
  [ ! -f "$RLHF_JOB_LOGS/ray-step" ] || step="$(<"$RLHF_JOB_LOGS/ray-step")"
  if [ -n "$step" ]; then
    scancel --signal=TERM "$step" 2>/dev/null
    while kill -0 "$ray" 2>/dev/null && [ $((tenths += 1)) -le 200 ]; do sleep 0.1; done
  fi
  kill "$ray" 2>/dev/null
  await "$ray" || true
}

requeue() {
  local failures
  if [ "$failed" = 1 ]; then
    echo "$(date) restart ${SLURM_RESTART_COUNT:-0}" >>"$FAILURES"
    failures="$(wc -l <"$FAILURES")"
    if [ "$failures" -gt "${RLHF_MAX_FAILURES:-3}" ]; then
      say "not requeued: restarts that failed: $failures, allowed (RLHF_MAX_FAILURES): ${RLHF_MAX_FAILURES:-3}"
      return
    fi
  fi
  say "requeue: the job goes on from its last checkpoint"
  trap 'exit "$AGAIN"' TERM
  if scontrol requeue "$SLURM_JOB_ID"; then
    sleep 60 & # until this shell is ended
    wait $!
  fi
  say "the job could not be requeued; the same command continues the run"
}

on_usr1() {
  time_is_up=1
  say "USR1: the time is nearly up"
  warn_driver
  if [ -n "$waiter" ]; then kill "$waiter"; fi
}

# Once only: a second signal kills the driver.
warn_driver() {
  if [ "$warned" = 0 ] && [ -n "$driver" ]; then
    warned=1
    kill -USR1 "$driver"
  fi
}

on_term() {
  told_to_end=1
  say "TERM: the job is to end"
  if [ -n "$waiter" ]; then kill "$waiter"; fi
}

# The exit status of a process. A trap interrupts `wait`; the last one returns the status that was kept.
await() {
  while kill -0 "$1" 2>/dev/null; do wait "$1"; done
  wait "$1"
}

say() {
  echo "$(date +%T) slurm.sh: $*"
}
