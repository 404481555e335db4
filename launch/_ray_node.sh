# shellcheck shell=bash
# The task of one node in slurm.sh's Ray step: `ray start --block`, from its start to the removal of its files.
#
# Its text, not its path, is what srun runs, so that a node which lacks the shared folder can say so. Standard output
# goes to ray-TASK.log on the first node; _wait_nodes.py reads the lines that begin with "slurm.sh:" there. Settings
# come from _job.sh: RLHF_RAY (the program), RLHF_RAY_HOST, RLHF_RAY_PORT, RLHF_RAY_TMP, RLHF_RAY_ARGS, RLHF_JOB_LOGS
# and RAY_ADDRESS.

set -uo pipefail
task=$SLURM_PROCID
node=${SLURMD_NODENAME:-$(uname -n)}
mark="$SLURM_JOB_ID.$task"
files="$RLHF_RAY_TMP-$mark"
cpus=${SLURM_CPUS_ON_NODE:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}
ray=""
stopping=0

main() {
  echo "slurm.sh: started on $node"
  echo "$SLURM_JOB_ID.$SLURM_STEP_ID" >"$RLHF_JOB_LOGS/ray-step" 2>/dev/null
  trap 'stopping=1; [ -z "$ray" ] || kill -TERM "$ray" 2>/dev/null' TERM INT
  # A signal to all steps must not kill Ray. What is ignored here is ignored by all that starts here.
  trap '' USR1
  local status=0
  run_ray || status=$?
  kill_leftovers
  keep_logs
  rm -rf "$files"
  echo "slurm.sh: ray ended on $node with $status"
  # However it is stopped, `ray start --block` ends with 1.
  [ "$stopping" = 1 ] || return "$status"
}

run_ray() {
  if [ ! -x "$RLHF_RAY" ]; then
    echo "$node has no $RLHF_RAY: repository and virtual environment must lie in a folder that all nodes share"
    return 127
  fi
  # Left by a job of this number that was killed. Not -p: nobody else may have made it.
  rm -rf "$files" && mkdir -m 700 "$files" || return 1
  local name more
  for name in "${!SLURM_@}" "${!PMI@}"; do unset "$name"; done # actors must not take themselves for tasks of srun
  read -ra more <<<"${RLHF_RAY_ARGS:-}"
  local options=(--block --node-name="$node" --num-cpus="$cpus" --num-gpus="$gpus" --temp-dir="$files"
    --disable-usage-stats --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0)
  if [ "$task" = 0 ]; then
    options+=(--head --node-ip-address="$RLHF_RAY_HOST" --port="$RLHF_RAY_PORT" --include-dashboard=false
      --ray-client-server-port="$((RLHF_RAY_PORT + 1))" --dashboard-port="$((RLHF_RAY_PORT + 2))")
  else
    await_head || return 1
    options+=(--address="$RAY_ADDRESS")
  fi
  RLHF_RAY_TASK="$mark" "$RLHF_RAY" start "${options[@]}" ${more[@]+"${more[@]}"} &
  ray=$!
  [ "$stopping" = 0 ] || kill -TERM "$ray"
  wait "$ray" && return 0 # until it ends, or a signal comes
  # `ray start` hangs when it is told to end before it has wholly started.
  local tenths=0
  while [ "$stopping" = 1 ] && kill -0 "$ray" 2>/dev/null; do
    [ $((tenths += 1)) -le 100 ] || kill -KILL "$ray"
    sleep 0.1
  done
  wait "$ray" # the status was kept
}

# `ray start` gives up after 20 s when the head is not there yet.
await_head() {
  while [ "$stopping" = 0 ]; do
    if (exec 3<>"/dev/tcp/$RLHF_RAY_HOST/$RLHF_RAY_PORT") 2>/dev/null; then return 0; fi
    sleep 0.2
  done
  return 1
}

# Everything that Ray started has its mark in the environment, whoever its parent is by now.
kill_leftovers() {
  local left tries=0
  while [ $((tries += 1)) -le 50 ]; do
    mapfile -t left < <(grep -lsz "^RLHF_RAY_TASK=$mark\$" /proc/[0-9]*/environ | cut -d / -f 3)
    [ ${#left[@]} -gt 0 ] || return 0
    kill -KILL "${left[@]}"
    sleep 0.1
  done 2>/dev/null
}

keep_logs() {
  if [ -d "$files/session_latest/logs" ]; then
    mkdir -p "$RLHF_JOB_LOGS/ray-$task" && cp -rL "$files/session_latest/logs/." "$RLHF_JOB_LOGS/ray-$task/"
  fi 2>/dev/null
}

main
