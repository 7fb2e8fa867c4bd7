#!/usr/bin/env bash
# Writes launch/locks/cpu.txt, cuda.txt and tpu.txt anew: every package that runs elsewhere get, by version and hash. Needs uv.
# Usage: launch/lock.sh [PLATFORM ...]     --upgrade takes the newest that setup.py allows; else versions stay where they can
set -euo pipefail
cd "$(dirname "$0")/.."

upgrade=()
[ "${1:-}" = --upgrade ] && upgrade=(--upgrade) && shift
command -v uv >/dev/null || {
  echo "lock: uv is not on PATH: pip install uv" >&2
  exit 3
}
[ $# -gt 0 ] || set -- cpu cuda tpu
for platform; do
  options=(--extra eval --extra gcs --extra s3 --extra synth)
  [ "$platform" = cpu ] || options+=(--extra "$platform")
  [ "$platform" = cuda ] || options+=(--torch-backend cpu) # evaluation alone needs PyTorch, and not its gigabytes for CUDA
  lock=launch/locks/$platform.txt
  echo "lock: $lock"
  uv pip compile setup.py "${options[@]}" "${upgrade[@]}" --quiet --universal --python-version 3.11 --generate-hashes \
    --no-annotate --custom-compile-command "launch/lock.sh $platform" --output-file "$lock"
  [ "$platform" = cuda ] || sed -i '1i --extra-index-url https://download.pytorch.org/whl/cpu' "$lock"
done
