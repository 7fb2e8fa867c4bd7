#!/usr/bin/env bash
# Tests: sets up what is missing, then checks style, types, layers and behaviour. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/setup.sh

setup eval,dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/pyright
.venv/bin/lint-imports
exec .venv/bin/python -m pytest -n "${E5JAX_TEST_WORKERS:-2}" --dist=worksteal "$@"
