"""BEIR folders: `corpus.jsonl` (_id, title, text), `queries.jsonl` (_id, text) and `qrels/SPLIT.tsv`.

The header of a qrels file is `query-id corpus-id score`. A score above 0 makes a positive, any other a negative: somebody
has looked at it and found it wrong.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from e5jax.data.compressed import SUFFIXES, bare_name
from e5jax.datasets.readers.qrels import Judgment, Layout, read_judged
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.datasets.readers.texts import identity, passage
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object

_HEADER = ["query-id", "corpus-id", "score"]


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A folder; `options.split` names the qrels file."""
    layout = Layout(
        [one_of(path, "corpus.jsonl")],
        one_of(path, "queries.jsonl"),
        _qrels(path, options.split),
        _document,
        _query,
        _judgment,
        lambda line: line.split("\t") == _HEADER,
    )
    return read_judged(layout, options._replace(source=options.source or path.name))


def one_of(folder: Path, *names: str) -> Path:
    """The first of these files that is in the folder, perhaps compressed."""
    for name in names:
        for suffix in ("", *SUFFIXES):
            if (file := folder / f"{name}{suffix}").is_file():
                return file
    raise ConfigError(f"{folder}: has no {' or '.join(names)}")


def _qrels(folder: Path, split: str) -> Path:
    have = sorted(
        {bare_name(file).removesuffix(".tsv") for file in (folder / "qrels").glob("*.tsv*")}
    )
    if split not in have:
        raise ConfigError(
            f"{folder / 'qrels'}: no {split}.tsv; splits that are there: {', '.join(have) or 'none'}"
        )
    return one_of(folder / "qrels", f"{split}.tsv")


def _document(line: str) -> tuple[str, str]:
    values = parse_object(line)
    return identity(values, "_id"), filled(passage(values, "text"), "text")


def _query(line: str) -> tuple[str, str]:
    values = parse_object(line)
    return identity(values, "_id"), filled(values.get("text"), "text")


def filled(text: object, name: str) -> str:
    """The text, unless it is none or blank."""
    if not isinstance(text, str) or not text.strip():
        raise RecordError(f"{name}: missing or empty")
    return text


def _judgment(line: str) -> tuple[str, Judgment]:
    fields = line.split("\t")
    if len(fields) != len(_HEADER):
        raise RecordError(
            f"number of fields is wrong: {len(fields)}, not query-id, corpus-id and score"
        )
    try:
        score = float(fields[2])
    except ValueError as error:
        raise RecordError(f"score is no number: {fields[2]!r}") from error
    if not math.isfinite(score):
        raise RecordError(f"score is no number: {fields[2]!r}")
    return fields[0], Judgment(fields[1], score > 0)
