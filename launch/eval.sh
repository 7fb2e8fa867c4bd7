#!/usr/bin/env bash
# Evaluates: sets up what is missing, then runs MTEB tasks on a model. The same command goes on with the tasks that are missing.
# Usage: launch/eval.sh MODEL [--tasks=A,B | --benchmark=NAME] [--output=DIR] [...]     (default: the paper's 56 tasks, on PyTorch)
# MODEL is a folder or a hub id; all options are in `e5jax eval --help`. Data is downloaded by MTEB; HF_HOME says where to.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
python=$(interpreter)
exec "$python" -m launch.launcher eval "$@"
