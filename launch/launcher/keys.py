"""Keys of a run (HF_TOKEN, OPENAI_API_KEY, …): from a private file, never in argv or logs."""

import re
from pathlib import Path

from e5jax.errors import ConfigError
from launch.launcher.record import read_text

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_keys(path: Path) -> dict[str, str]:
    """NAME=VALUE lines of a private file. Raises ConfigError, whose message never holds a value."""
    if not path.is_file():
        raise ConfigError(
            f"--key-file={path}: no such file; write NAME=VALUE lines to it and chmod 600 {path}"
        )
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"--key-file={path}: other users may read it; chmod 600 {path}")
    keys = {}
    for number, line in enumerate(read_text(path, "--key-file=").splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not line.strip() or line.startswith("#"):
            continue
        if not equals or not NAME.fullmatch(name) or not value:
            raise ConfigError(f"--key-file={path}: line {number} is not NAME=VALUE")
        keys[name] = value
    return keys
