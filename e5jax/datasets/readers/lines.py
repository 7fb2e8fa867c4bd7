"""Lines of a file as text, and what a format makes of each: a bad line is a rejection, never the end of the file."""

from collections.abc import Callable, Iterator
from pathlib import Path

from e5jax.data.compressed import bare_name
from e5jax.data.files import JSONL, Line, lines
from e5jax.data.records import Example, check_example
from e5jax.datasets.readers.result import Options, Outcome, Rejected
from e5jax.errors import ConfigError, RecordError


def files(path: Path, *suffixes: str) -> list[Path]:
    """The file itself, or the files below a folder whose names end so, compressed ones too, sorted."""
    if path.is_file():
        return [path]
    endings = tuple(JSONL) + suffixes if ".jsonl" in suffixes else suffixes
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and bare_name(file).lower().endswith(endings)
    ]
    if not found:
        raise ConfigError(
            f"{path}: no such file, or a folder without {' or '.join('*' + suffix for suffix in suffixes)} files"
        )
    return found


def examples(
    path: Path, options: Options, make: Callable[[Line, str], Example]
) -> Iterator[Outcome]:
    """What `make` gives for each line and the name of its set, checked; a RecordError becomes a rejection."""
    source = options.source or name_of(path)
    for line in lines(path, options.limits):
        if isinstance(line, Rejected):
            yield line
            continue
        try:
            yield check_example(make(line, source))
        except RecordError as error:
            yield Rejected(str(path), line.number, str(error))


def name_of(path: Path) -> str:
    """The name of a set: that of its file without suffixes."""
    return bare_name(path).partition(".")[0] or path.name
