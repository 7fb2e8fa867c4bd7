"""What is running: the commit of the code, and the versions of what it stands on."""

import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.metadata import requires
from pathlib import Path

from e5jax.errors import ConfigError

STAMP = Path(__file__).with_name("commit.txt")  # `git archive` writes the commit into it
PACKAGES = (
    *(
        "e5jax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "grain",
        "array_record",
        "tokenizers",
        "safetensors",
        "numpy",
    ),
)
OPTIONAL = (
    "libtpu",
    "jax-cuda13-plugin",
    "jax-cuda13-pjrt",
    "gcsfs",
    "s3fs",
    "torch",
    "transformers",
    "sentence-transformers",
    "mteb",
)
UNKNOWN = "unknown"
SECONDS = 10


def versions() -> dict[str, str]:
    """Python and packages, to be kept beside what they made."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def optional() -> dict[str, str]:
    """Those that need not be there, as far as they are."""
    there = {one.name.lower().replace("_", "-") for one in metadata.distributions() if one.name}
    return {name: metadata.version(name) for name in OPTIONAL if name in there}


def commit() -> str:
    """Of the code that runs: as it was archived, or as git says, with + where files were changed since."""
    stamp = STAMP.read_text(encoding="utf-8").strip() if STAMP.is_file() else ""
    if stamp and not stamp.startswith("$"):
        return stamp
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return UNKNOWN
    try:
        command = [
            "git",
            "-C",
            str(root),
            "describe",
            "--always",
            "--dirty=+",
            "--abbrev=40",
            "--exclude=*",
        ]
        done = subprocess.run(  # noqa: S603  no shell, and only our own words
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=SECONDS,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return UNKNOWN
    return done.stdout.strip() or UNKNOWN


_REQUIREMENT = re.compile(r"""([\w.-]+)(?:.*\bextra == ["']([\w-]+)["'])?""")


@contextmanager
def needed(stage: str) -> Iterator[None]:
    """Around what imports packages of extras. Raises ConfigError with what to install; an extra may have the stage's name."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if not (extras := _extras(module)):
            raise
        extra = stage if stage in extras else extras[0]
        raise ConfigError(
            f"`e5jax {stage}` needs the package {module}: pip install 'e5jax[{extra}]'"
        ) from error


def _extras(module: str) -> list[str]:
    """In the order of `setup.py`; none for what is needed always. Packages are called as their modules are, but for a -cpu."""
    found = [match for line in requires("e5jax") or () if (match := _REQUIREMENT.match(line))]
    extras = [
        match[2] for match in found if match[1].removesuffix("-cpu").replace("-", "_") == module
    ]
    return [] if None in extras else extras
