#!/usr/bin/env bash
# Evaluates: sets up what is missing, then runs MTEB tasks on a model. The same command goes on with the tasks that are missing.
# Usage: launch/eval.sh MODEL [--tasks=A,B | --benchmark=NAME] [--output=DIR] [...]     (default: the paper's 56 tasks, on PyTorch)
# MODEL is a folder or a hub id; all options are in `e5jax eval --help`. Data is downloaded by MTEB; HF_HOME says where to.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh

case ${1:-} in
'' | -*)
  sed -n '2,4s/^# //p' "$0"
  case ${1:-} in -h | --help) exit 0 ;; *) exit 2 ;; esac
  ;;
*) model=$1 && shift ;;
esac
case " $* " in *" --tasks"* | *" --benchmark"*) ;; *) set -- --benchmark='MTEB(eng, v1)' "$@" ;; esac
case " $* " in *" --output"*) ;; *) set -- --output="runs/eval/$(basename "$model")" "$@" ;; esac
setup eval
exec .venv/bin/python -m e5jax eval --model="$model" "$@"
