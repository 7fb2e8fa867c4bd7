#!/usr/bin/env bash
# Makes .venv with what is missing, and does nothing when nothing is. PYTHON names the interpreter to build it with (3.11 to 3.13).
# Usage: launch/setup.sh EXTRAS                 for example eval, or eval,tpu: what setup.py allows, as editable install
#        launch/setup.sh --locked PLATFORM      cpu, cuda or tpu: exactly what launch/locks/PLATFORM.txt says, checked by hash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What runs the launcher: the environment, or else the interpreter that would build it.
interpreter() {
  if [ -x .venv/bin/python ]; then
    echo .venv/bin/python
    return
  fi
  local python=${PYTHON:-python3}
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "setup: $python is $("$python" --version 2>&1); e5jax needs Python 3.11 to 3.13: set PYTHON=/path/to/python" >&2
    exit 1
  }
  echo "$python"
}

# Packages as setup.py allows them; the code stays where it is.
editable() {
  local extras=$1 wanted mark=.venv/.e5jax-$1 python
  wanted=$(cat requirements.txt setup.py | sha256sum)
  if [ -x .venv/bin/python ] && [ "$(cat "$mark" 2>/dev/null)" = "$wanted" ]; then
    echo "setup: .venv has everything"
    return
  fi
  python=$(interpreter)
  echo "setup: installing e5jax[$extras] into .venv (several minutes the first time)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
  echo "$wanted" >"$mark"
}

# Packages as the lock has them, in an environment that all commits with this lock share: beside their code, or in E5JAX_VENVS.
locked() {
  local lock=launch/locks/$1.txt place python
  [ -f "$lock" ] || {
    echo "setup: --locked $1: there is no $lock; there are $(cd launch/locks && echo *.txt)" >&2
    exit 2
  }
  place=${E5JAX_VENVS:-../../venv}/$1-$(sha256sum <"$lock" | cut -c1-12)
  mkdir -p "$(dirname "$place")"
  exec 9>"$place.lock"
  flock 9 # hosts may share the folder
  if [ ! -e "$place/.complete" ]; then
    python=$(interpreter)
    echo "setup: installing $lock into $place (several minutes the first time)"
    "$python" -m venv --clear "$place"
    "$place/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$lock"
    touch "$place/.complete"
  fi
  ln -sfn "$place" .venv
  # The code of a commit is found where it is; what importlib.metadata knows of it lies beside it.
  [ -e e5jax.egg-info/PKG-INFO ] || .venv/bin/python setup.py --quiet egg_info
  echo "setup: $place has everything"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  case ${1:-} in
  --locked) locked "${2:?--locked PLATFORM}" ;;
  '' | -*)
    sed -n '2,4s/^# //p' "$0"
    exit 2
    ;;
  *) editable "$1" ;;
  esac
fi
