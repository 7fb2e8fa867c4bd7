#!/usr/bin/env bash
# Trains, here or on machines elsewhere: sets up what is missing, then takes a config from data to evaluation. The same command resumes.
# Usage: launch/train.sh [CONFIG] [--target=…] [--workdir=DIR] [--config.field=value ...]     (default: configs/quickstart.py, here)
set -euo pipefail
source "$(dirname "$0")/setup.sh"
python=$(interpreter)
exec "$python" -m launch.launcher train "$@"
