#!/usr/bin/env bash
# Runs an ablation on a Slurm cluster: an array job with a task for every run, then a job that collects the result.
#
#   launch/slurm.sh --sweep FILE [key=value …] [-- SBATCH OPTIONS …]
#
#   launch/slurm.sh --sweep configs/ablations/clip_higher.yaml -- --time=1:00:00 --gpus=1 --partition=main
#
# The options go to every task of the array; --array is ours, SBATCH_… variables work as always. Submitting again runs
# only what is missing or failed: a task that was killed or requeued goes on from its run's last checkpoint. Call it
# from a folder that all nodes share; sweeps/ is written there, and one log per task in sweeps/NAME/slurm/.
# Installs what is needed on first use, like launch/local.sh. RLHF_AT_ONCE: at most so many tasks at the same time.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

case "${1-}" in
  -h | --help)
    usage
    exit 0
    ;;
  --sweep) ;;
  *) die "give --sweep FILE; $0 --help says more" ;;
esac
[ $# -ge 2 ] || die "--sweep needs a file, for example configs/ablations/clip_higher.yaml"
command -v sbatch >/dev/null || die "there is no sbatch on this machine; on a single machine use: rlhf sweep $2"
shift

words=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  words+=("$1")
  shift
done
if [ $# -gt 0 ]; then shift; fi

prepare_venv base
sweep="$(printf '%q ' "$VENV/bin/rlhf" sweep "${words[@]}")"
# Checks every arm and writes its config, so that the tasks find them there. The last line: how many runs, and the folder.
read -r runs folder < <("$VENV/bin/rlhf" sweep "${words[@]}" --prepare | tail -n 1) || die "nothing was submitted"
mkdir -p "$folder/slurm"

limit="${RLHF_AT_ONCE:+%$RLHF_AT_ONCE}"
array="$(sbatch --parsable --requeue --job-name="$(basename "$folder")" --array="0-$((runs - 1))$limit" \
  --output="$folder/slurm/%a.log" --open-mode=append "$@" \
  --wrap "exec $sweep --share \"\$SLURM_ARRAY_TASK_ID/$runs\"")"
collect="$(sbatch --parsable --job-name="$(basename "$folder")-result" --dependency="afterany:${array%%;*}" \
  --output="$folder/slurm/result.log" --wrap "exec $sweep --collect")"
echo "submitted: array ${array%%;*} of $runs runs, then job ${collect%%;*} writes $folder/report.html"
