#!/usr/bin/env bash
# One process per GPU of this machine, for containers and managed jobs (Docker, Kubernetes, SkyPilot):
#   launch/cluster/start.sh OUTPUT_DIR [flags of mipic train]
# Started again with the same words it goes on from the newest checkpoint; what an attempt left that
# ended before its first checkpoint is replaced. SIGTERM goes to all ranks: they save and end with
# code 75. The code is the highest of the ranks'. Environment: GPUS (processes; else all GPUs),
# PATIENCE (seconds that ranks may outlive one that failed; 240), and on several machines NODES,
# NODE_RANK (from 0), MASTER_ADDR, MASTER_PORT; OUTPUT_DIR is then shared.
set -uo pipefail
[ $# -ge 1 ] || { echo "usage: launch/cluster/start.sh OUTPUT_DIR [flags]" >&2; exit 2; }
out=$1
shift
again=()
if compgen -G "$out/checkpoints/step-*" >/dev/null; then
  again=(--train.resume auto)
elif [ -e "$out/config.yaml" ] && [ ! -e "$out/adapter" ] && [ ! -e "$out/merged" ]; then
  again=(--overwrite true)
fi
gpus=${GPUS:-$(nvidia-smi -L | wc -l)}
if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then
  why="nvidia-smi shows no GPU" code=1 # of this machine, so worth another try
  [ -z "${GPUS:-}" ] || why="GPUS is $GPUS" code=2
  echo "error: $why; nothing was started; set GPUS to the number of processes" >&2
  exit "$code"
fi
export MASTER_ADDR=${MASTER_ADDR:-127.0.0.1} MASTER_PORT=${MASTER_PORT:-29500}
export WORLD_SIZE=$((${NODES:-1} * gpus))
pids=()
for ((i = 0; i < gpus; i++)); do
  RANK=$((${NODE_RANK:-0} * gpus + i)) LOCAL_RANK=$i "${PYTHON:-python3}" -m mipic_llm train \
    --train.save_every 200 "$@" --output_dir "$out" ${again[@]+"${again[@]}"} &
  pids+=($!)
done
tell() { kill -TERM "${pids[@]}" 2>/dev/null; }
trap tell TERM INT USR1
worst=0 ending=0
while [ ${#pids[@]} -gt 0 ]; do
  sleep 1 &
  wait $!
  left=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      left+=("$pid")
      continue
    fi
    wait "$pid"
    code=$?
    ((code > worst)) && worst=$code
  done
  pids=(${left[@]+"${left[@]}"})
  # A rank that failed leaves the others waiting for it: they get some minutes to end by themselves.
  ((worst != 0 && ++ending == ${PATIENCE:-240})) && {
    kill -KILL "${pids[@]}" 2>/dev/null
    exit "$worst"
  }
done
exit "$worst"
