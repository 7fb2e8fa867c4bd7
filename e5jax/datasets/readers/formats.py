"""The formats that can be read, by name."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from e5jax.data.compressed import DamagedError, bare_name, chunks
from e5jax.data.files import Line, kind_of, lines
from e5jax.datasets.readers import (
    beir,
    dpr,
    echo_mix,
    fever,
    hotpotqa,
    hub,
    miracl,
    msmarco,
    native,
    pairs,
    parquet,
    quora,
    rocketqa,
    tevatron,
    votes,
)
from e5jax.datasets.readers.lines import files
from e5jax.datasets.readers.result import LIMITS, OPTIONS, Limits, Options, Outcome
from e5jax.datasets.readers.rows import LABELS
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_value

Reader = Callable[[Path, Options], Iterator[Outcome]]

FORMATS: dict[str, Reader] = {
    "e5jax": native.read,
    "e5-mix": echo_mix.read,
    "pairs": pairs.read,
    "tevatron": tevatron.read,
    "beir": beir.read,
    "dpr": dpr.read,
    "msmarco": msmarco.read,
    "miracl": miracl.read,
    "hotpotqa": hotpotqa.read,
    "fever": fever.read,
    "votes": votes.read,
    "quora": quora.read,
    "rocketqa": rocketqa.read,
    "parquet": parquet.read,
    "datasets": hub.read,
}
AUTO = "auto"
_ROWS = ("pairs", "parquet", "datasets")  # formats with named columns

# Names that only one format has, all of them in the first line.
_SIGNS = (
    ({"query", "positives"}, "e5jax"),
    ({"anchor", "positive"}, "pairs"),
    ({"query", "pos"}, "pairs"),
    ({"query", "positive_passages"}, "tevatron"),
    ({"query", "positive", "negative"}, "e5-mix"),
    ({"input", "output"}, "votes"),
    ({"title", "answers"}, "votes"),
)
_TABLES = (
    ({"anchor", "positive"}, "pairs"),
    ({"sent0", "sent1"}, "pairs"),
    (set(quora.COLUMNS), "quora"),
)
_HEAD = 1 << 16  # bytes: more than the first object of an array has


def read(path: Path, name: str = AUTO, options: Options = OPTIONS) -> Iterator[Outcome]:
    """Examples and rejections, in the order of the files. Raises ConfigError for what is no bad line: no file, no such
    format, a cap.
    """
    if name == AUTO:
        name = detect(path, options.limits)
    reader = find(name)
    for option, value in (
        ("--threshold", options.threshold),
        ("--columns", options.columns or None),
    ):
        if value is not None and name not in _ROWS:
            raise ConfigError(
                f"{option}: {name} has no columns to name; it is for {', '.join(_ROWS)}"
            )
    return reader(path, options)


def find(name: str) -> Reader:
    """The reader of a format. Raises ConfigError."""
    if name not in FORMATS:
        raise ConfigError(
            f"format {name!r}: there is none; use one of {', '.join(FORMATS)}, {AUTO}"
        )
    return FORMATS[name]


def detect(path: Path, limits: Limits = LIMITS) -> str:
    """The format of a file or folder, if there can be no doubt. Raises ConfigError otherwise."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder")
    name = (_of_folder(path) if path.is_dir() else None) or _of_file(path, limits)
    if name is None:
        raise ConfigError(
            f"{path}: its format cannot be told from its content; name it, one of {', '.join(FORMATS)}"
        )
    return name


def _of_folder(path: Path) -> str | None:
    names = {bare_name(file) for file in path.iterdir()}
    if {"corpus.jsonl", "queries.jsonl", "qrels"} <= names:
        return "beir"
    if names & {"collection.tsv", "msmarco-docs.tsv"}:
        return "msmarco"
    found = [file for file in path.rglob("*") if file.is_file()]
    if any(fever.is_pages(file) for file in found):
        return "fever"
    if any(miracl.TOPICS.fullmatch(bare_name(file)) for file in found):
        return "miracl"
    return "datasets" if hub.is_saved(path) else None


def _of_file(path: Path, limits: Limits) -> str | None:
    first = files(path, ".jsonl", ".json", ".parquet", ".csv", ".tsv")[0]
    kind = kind_of(first)
    if kind == "parquet":
        return "parquet"
    if kind == "array":
        return _of_array(first, limits)
    line = next((line for line in islice(lines(first, limits), 1) if isinstance(line, Line)), None)
    if line is None or kind == "text":
        return None
    if kind in ("csv", "tsv"):
        header = set(line.text.replace("\t", ",").replace('"', "").split(","))
        return next((format_ for names, format_ in _TABLES if names <= header), None)
    return _of_json(line.text)


def _of_array(path: Path, limits: Limits) -> str | None:
    """A file may be one line of gigabytes."""
    try:
        head = next(chunks(path, limits), b"")[:_HEAD]
    except DamagedError:
        return None
    signs = {b'"supporting_facts"': "hotpotqa", b'"positive_ctxs"': "dpr", b'"question"': "dpr"}
    return next((name for sign, name in signs.items() if sign in head), None)


def _of_json(text: str) -> str | None:
    try:
        value = parse_value(text)
    except RecordError:
        return None
    if isinstance(value, list):
        return "pairs"
    found = {
        format_ for names, format_ in _SIGNS if isinstance(value, dict) and names <= set(value)
    }
    if found == {"e5-mix"} and set(LABELS) & set(value):
        return "pairs"  # the only one of the two that heeds labels
    return found.pop() if len(found) == 1 else None
