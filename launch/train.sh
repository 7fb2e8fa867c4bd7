#!/usr/bin/env bash
# Trains: sets up what is missing, then takes a config from data to evaluation. The same command resumes.
# Usage: launch/train.sh [CONFIG] [--workdir=DIR] [--config.field=value ...]     (default: configs/quickstart.py)
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh

case ${1:-} in
-h | --help)
  sed -n '2,3s/^# //p' "$0"
  exit 0
  ;;
*.py) config=$1 && shift ;;
*) config=configs/quickstart.py ;;
esac
setup eval
# A step on CPUs allocates gigabytes anew; in huge pages that takes a tenth less time. Elsewhere it changes nothing.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec .venv/bin/python -m e5jax run --config="$config" "$@"
