# What the batch scripts share: which program, how it is started, when a job starts again. Sourced by them, in a job.
#
#   TADAPT_PROGRAM       the program; default: tadapt-dist of this tree's build/cuda, of build/release, of the PATH
#   TADAPT_CONTAINER     an Apptainer image to take the program from instead
#   TADAPT_MAX_RESTARTS  how often one job may start again; default 100
# shellcheck shell=bash

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() {
  printf 'tadapt: job %s: %s\n' "$SLURM_JOB_ID" "$*"
}

refuse() {
  printf 'tadapt: %s\n' "$*" >&2
  exit 78
}

# The words that start one rank, in `program`.
find_program() {
  local place places=("$tree"/build/{cuda,release}/tadapt-dist "$(command -v tadapt-dist || true)")
  if [[ -n ${TADAPT_CONTAINER:-} ]]; then
    [[ -r $TADAPT_CONTAINER ]] || refuse "TADAPT_CONTAINER: there is no $TADAPT_CONTAINER"
    program=(apptainer exec ${SLURM_JOB_GPUS:+--nv} "$TADAPT_CONTAINER" tadapt-dist)
    return
  fi
  [[ -z ${TADAPT_PROGRAM:-} ]] || places=("$TADAPT_PROGRAM")
  for place in "${places[@]}"; do
    [[ -x $place ]] || continue
    program=("$place")
    return
  done
  refuse "no program: ${places[*]} (TADAPT_PROGRAM names another)"
}

# Puts the job back into the queue if it may start once more, and if Slurm is not ending it anyway: one that was
# cancelled saves and leaves with 75 too.
requeue() {
  local most=${TADAPT_MAX_RESTARTS:-100} state
  state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T || true)
  if [[ $state != RUNNING ]]; then
    say "saved; not requeued here, the job is ${state:-in an unknown state}"
  elif ((${SLURM_RESTART_COUNT:-0} >= most)); then
    say "saved; not requeued, it has started again $most times (TADAPT_MAX_RESTARTS)"
  else
    say "saved; requeued"
    # It also ends this job, and with it scontrol.
    (trap '' TERM; exec scontrol requeue "$SLURM_JOB_ID") || say "scontrol requeue failed; submit it again"
  fi
}

# run_ranks COMMAND [FLAG...]: the program on all tasks of the job; ends the script with its exit code.
run_ranks() {
  local code=0 flags=(--kill-on-bad-exit=1)
  # For every task the nearest GPU of its own, unless the job's flags say otherwise.
  [[ -z ${SLURM_JOB_GPUS:-} || -n ${SLURM_GPUS_PER_TASK:-}${SLURM_GPU_BIND:-} ]] || flags+=(--gpu-bind=single:1)
  # Steps do not inherit it since Slurm 22.05.
  [[ -z ${SLURM_CPUS_PER_TASK:-} ]] || flags+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
  # Slurm sends SIGTERM to ranks and script alike: the script stays until they have saved.
  trap : TERM
  srun "${flags[@]}" "${program[@]}" "$@" || code=$?
  ((code != 75)) || requeue
  exit "$code"
}

[[ -n ${SLURM_JOB_ID:-} ]] || refuse "not in a job of Slurm; submit this script: sbatch [FLAG OF sbatch]… $0 [FLAG]…"
find_program
