"""Which extra of this package brings a module that is missing here; `setup.py` says which there are."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import requires

from e5jax.errors import ConfigError

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
        raise ConfigError(f"`e5jax {stage}` needs the package {module}: pip install 'e5jax[{extra}]'") from error


def _extras(module: str) -> list[str]:
    """In the order of `setup.py`; none for what is needed always. Packages are called as their modules are, but for a -cpu."""
    found = [match for line in requires("e5jax") or () if (match := _REQUIREMENT.match(line))]
    extras = [match[2] for match in found if match[1].removesuffix("-cpu").replace("-", "_") == module]
    return [] if None in extras else extras
