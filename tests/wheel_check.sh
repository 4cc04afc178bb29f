#!/usr/bin/env bash
# The package as a user installs it: a new environment, outside the repository, from the wheel.
# Run by `make wheel-check` with the Python of the environment that can build; minutes, and it
# downloads what constraints.txt pins (CHECK_PIP_ARGS: more arguments for pip).
set -euo pipefail
python=$1
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
cp -r "$root"/{mipic_llm,launch,ds_configs,pyproject.toml,setup.py,README.md,LICENSE,MANIFEST.in} .
"$python" -m build --wheel --no-isolation -o dist . >/dev/null
"$python" -m venv venv
# shellcheck disable=SC2086
venv/bin/pip install -q ${CHECK_PIP_ARGS:-} -c "$root/constraints.txt" "$(echo dist/*.whl)[demo]"
mkdir work && cd work
unset PYTHONPATH
export PATH="$place/venv/bin:$PATH" CUDA_VISIBLE_DEVICES=""
printf 'anchor,positive\n' >x.csv
for i in 1 2 3 4 5 6 7 8 9; do echo "a small boat $i,a little ship $i" >>x.csv; done
flags=(--data.train x.csv --train.max_steps 2 --train.batch_size 4 --tracking.mlflow off)
mipic
mipic plan --recipe qwen3-0.6b --gpu h200
mipic train "${flags[@]}" --output_dir one
deepspeed --num_accelerators 2 --module mipic_llm train --ds_config zero3 "${flags[@]}" --output_dir two
mipic export --output_dir two --point 64@3
mipic evaluate --model two/adapter --data demo --layers 3 6 --dims 64 --output_dir scores
mipic report one two --output both.png
test -s one/adapter/adapter_model.safetensors
test -s two/shallow-3x64/model.safetensors
test -s scores/scores.jsonl
test -s both.png
echo "the wheel works outside the repository"
