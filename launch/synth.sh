#!/usr/bin/env bash
# Generates training examples with a language model: sets up what is missing. The same command goes on where it was.
# Usage: launch/synth.sh CONFIG [--output=DIR] [--config.field=value ...]     for example configs/synth_e5.py
# The key is in OPENAI_API_KEY, or in a file: --key-file or --config.endpoint.key_file.
set -euo pipefail
source "$(dirname "$0")/setup.sh"
python=$(interpreter)
exec "$python" -m launch.launcher synth "$@"
