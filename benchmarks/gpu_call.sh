#!/usr/bin/env bash
# All measurements on a GPU machine without a network, in one call, run in the repository's root:
#   bash benchmarks/gpu_call.sh FOLDER [SECONDS=570] [flags of benchmarks.everything]
# FOLDER/env, if there is one, puts vLLM and what else the machine lacks on PYTHONPATH. FOLDER keeps the random model,
# so a further call on the same machine goes on with it. Triton's compiled kernels are taken from .gpu/triton.tar.gz, if
# it was carried along. What is to come back is put in $OUT.
set -uo pipefail
folder=$(realpath "$1"); seconds=${2:-570}; shift; shift || true
out=${OUT:-$folder/out}
[ -f "$folder/env" ] && source "$folder/env"
export PYTHONPATH=$PWD:$folder/plugin${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
cache=${TRITON_CACHE_DIR:-$HOME/.triton/cache}

# What an installation would have told: by its entry point vLLM finds the model.
python3 - "$folder/plugin" <<'PY' || exit 1
import sys, tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
information = Path(sys.argv[1]) / f"{project['name'].replace('-', '_')}-0.dist-info"
information.mkdir(parents=True, exist_ok=True)
(information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0\n")
points = "".join(
    f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in entries.items())
    for group, entries in project["entry-points"].items()
)
(information / "entry_points.txt").write_text(points)
PY
mkdir -p "$cache" "$out"
[ -f .gpu/triton.tar.gz ] && tar -C "$cache" -xzf .gpu/triton.tar.gz
[ -d "$folder/full" ] || python3 -m tools.random_checkpoint --size full "$folder/full" || exit 1

python3 -m benchmarks.everything --model_dir "$folder/full" --out "$out" --seconds $((seconds - SECONDS - 15)) "$@"
status=$?
# Without the compiler's intermediate forms, which only a reader wants.
tar -C "$cache" --exclude='*.ttir' --exclude='*.ttgir' --exclude='*.llir' --exclude='*.ptx' --exclude='*.source' -cz . \
    | split -b 15m - "$out/triton.tar.gz."
exit $status
