#!/usr/bin/env bash
# Tests: sets up what is missing, then checks style, types, layers and behaviour. Arguments go to pytest.
set -euo pipefail
source "$(dirname "$0")/setup.sh"

editable eval,dev
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright
.venv/bin/lint-imports
exec .venv/bin/python -m pytest -n "${E5JAX_TEST_WORKERS:-3}" --dist=worksteal "$@"
