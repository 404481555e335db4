#!/usr/bin/env bash
# Trains on a Slurm cluster: a job with Ray on all its nodes, or an ablation as an array of jobs.
#
#   launch/slurm.sh CONFIG [key=value …] [-- SBATCH OPTIONS …]
#   launch/slurm.sh --sweep FILE [key=value …] [-- SBATCH OPTIONS …]
#
#   launch/slurm.sh configs/grpo.yaml run.name=first -- --nodes=2 --gpus-per-node=8 --exclusive --time=12:00:00
#   launch/slurm.sh --sweep configs/ablations/clip_higher.yaml -- --time=1:00:00 --gpus=1 --partition=main
#
# Installs what is needed on first use, like launch/local.sh. Call it from a folder that all nodes share, with the
# repository and its virtual environment in one too. SBATCH_… variables work as always.
#
# CONFIG: submits one job. It starts Ray on its nodes and `rlhf train CONFIG … runtime.name=ray` on the first, and ends
# with that command's exit code. Two minutes before the time limit (option --signal=B:USR1@SECONDS) the run writes a
# checkpoint, the job is requeued and goes on; likewise when Ray is lost on a node. Called in a job, with `exec` by a
# batch script of your own, it submits nothing and uses that job's nodes. The log is slurm/JOB.log, Ray's own logs are
# kept in slurm/JOB.RESTART/. The job ends with 69 when Ray did not come up, with 75 when it could not be requeued.
#
#   RLHF_WAIT_S        seconds that nodes have to join Ray; 300
#   RLHF_MAX_FAILURES  how often a job is requeued after a loss, or after a warning too early to reach anything; 3
#   RLHF_HEAD_IP       address by which other nodes reach the first one; found by routes and names
#   RLHF_IFNAME        or its network interface
#   RLHF_PORTS         where three free ports in a row are looked for; 20000-31999. Ray chooses the others.
#   RLHF_RAY_ARGS      more words for `ray start` on every node, such as --object-store-memory=BYTES
#   RLHF_RAY_TMP       Ray's files on a node lie in RLHF_RAY_TMP-JOB.TASK until the end; /tmp/rlhf. Keep it short.
#   RLHF_SRUN_ARGS     more words for srun, such as those that choose a container
#   RLHF_LOGS          folder of the logs; slurm
#   RLHF_DRIVER        another command in place of `rlhf train`, split at blanks; it gets the same words
#
# --sweep: an array job with a task for every run, then a job that collects the result. The options go to every task of
# the array; --array is ours. Submitting again runs only what is missing or failed: a task that was killed or requeued
# goes on from its run's last checkpoint. sweeps/ is written where you call it, one log per task in sweeps/NAME/slurm/.
#
#   RLHF_AT_ONCE       at most so many tasks at the same time

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

main() {
  case "${1-}" in
    -h | --help)
      usage
      exit 0
      ;;
    --sweep)
      shift
      [ $# -ge 1 ] || die "--sweep needs a file, for example configs/ablations/clip_higher.yaml"
      split_words "$@"
      submit_sweep
      ;;
    "" | -*) die "give CONFIG, or --sweep FILE; $0 --help says more" ;;
    *)
      split_words "$@"
      [ -f "$1" ] || die "there is no config $1"
      if [ -z "${SLURM_JOB_ID:-}" ]; then
        submit_run
      elif [ ${#options[@]} -gt 0 ]; then
        die "inside of a job there is nothing to submit: leave out what follows --"
      else
        . "$ROOT/launch/_job.sh"
        set +e # what fails in a job must not keep the rest from being cleaned up
        run_job "${words[@]}"
      fi
      ;;
  esac
}

usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

# What stands before `--` and what behind.
split_words() {
  words=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    words+=("$1")
    shift
  done
  if [ $# -gt 0 ]; then shift; fi
  options=("$@")
}

submit_run() {
  local name logs settings="" variable job
  command -v sbatch >/dev/null || die "there is no sbatch here; on a single machine use: launch/local.sh ${words[0]}"
  prepare_venv cluster
  [ -x "$VENV/bin/ray" ] || die "$VENV has no ray: pip install 'ray[default]' there, or let RLHF_VENV name another"
  name="$(basename "${words[0]}")"
  logs="${RLHF_LOGS:-slurm}"
  mkdir -p "$logs"
  logs="$(cd "$logs" && pwd -P)"
  # The job runs this file where it lies, not the copy that Slurm makes of a script, and with the present settings even
  # when --export keeps them out.
  for variable in "${!RLHF_@}"; do settings+="$(printf '%s=%q ' "$variable" "${!variable}")"; done
  job="$(sbatch --parsable --job-name="${name%.*}" --ntasks-per-node=1 --requeue --signal=B:USR1@120 \
    --output="$logs/%j.log" --open-mode=append ${options[@]+"${options[@]}"} \
    --wrap "exec env ${settings}RLHF_LOGS=$(printf '%q ' "$logs" bash "$ROOT/launch/slurm.sh" "${words[@]}")")"
  echo "submitted: job ${job%%;*}, log $logs/${job%%;*}.log"
}

submit_sweep() {
  local sweep runs folder limit array collect
  command -v sbatch >/dev/null || die "there is no sbatch here; on a single machine use: rlhf sweep ${words[0]}"
  prepare_venv base
  sweep="$(printf '%q ' "$VENV/bin/rlhf" sweep "${words[@]}")"
  # Checks every arm and writes its config, so that the tasks find them there. The last line: how many runs, the folder.
  read -r runs folder < <("$VENV/bin/rlhf" sweep "${words[@]}" --prepare | tail -n 1) || die "nothing was submitted"
  mkdir -p "$folder/slurm"

  limit="${RLHF_AT_ONCE:+%$RLHF_AT_ONCE}"
  array="$(sbatch --parsable --requeue --job-name="$(basename "$folder")" --array="0-$((runs - 1))$limit" \
    --output="$folder/slurm/%a.log" --open-mode=append ${options[@]+"${options[@]}"} \
    --wrap "exec $sweep --share \"\$SLURM_ARRAY_TASK_ID/$runs\"")"
  collect="$(sbatch --parsable --job-name="$(basename "$folder")-result" --dependency="afterany:${array%%;*}" \
    --output="$folder/slurm/result.log" --wrap "exec $sweep --collect")"
  echo "submitted: array ${array%%;*} of $runs runs, then job ${collect%%;*} writes $folder/report.html"
}

main "$@"
