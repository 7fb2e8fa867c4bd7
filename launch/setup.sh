# Sourced by train.sh and test.sh: a virtual environment with what is missing, and nothing when nothing is.
# Usage: setup EXTRAS, for example `setup eval`. PYTHON names the interpreter to build it with (3.11 to 13).

setup() {
  local extras=$1 python=${PYTHON:-python3} wanted mark=.venv/.e5jax-$1
  compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null && extras+=,tpu
  command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1 && extras+=,cuda
  case $extras in *tpu* | *cuda*) ;; *) export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} ;; esac

  wanted=$(cat requirements.txt setup.py | sha256sum)
  if [ -x .venv/bin/python ] && [ "$(cat "$mark" 2>/dev/null)" = "$wanted" ]; then
    echo "setup: .venv has everything"
    return
  fi
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "setup: $python is $("$python" --version 2>&1); e5jax needs Python 3.11 to 3.13: set PYTHON=/path/to/python" >&2
    exit 1
  }
  echo "setup: installing e5jax[$extras] into .venv (several minutes the first time)"
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
  echo "$wanted" >"$mark"
}
