"""FEVER: claims with evidence in `SPLIT.jsonl`, and the Wikipedia pages it is in, `wiki-pages/wiki-*.jsonl`.

A claim has `id`, `claim`, `label` and `evidence`: sets of [annotation, evidence, page, sentence]. The pages are positives, whether
they support or refute the claim; a claim without enough evidence has none. A page has `id` and `text`, brackets and colons
written as -LRB- and the like.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from e5jax.data.compressed import bare_name
from e5jax.data.records import Example
from e5jax.datasets.readers.beir import filled, one_of
from e5jax.datasets.readers.lines import Line, examples, files
from e5jax.datasets.readers.offsets import Offsets, find_in
from e5jax.datasets.readers.result import Options, Outcome
from e5jax.datasets.readers.texts import identity, passage
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object

_WRITTEN = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-COLON-": ":"}


def is_pages(file: Path) -> bool:
    """Whether this is a file of Wikipedia pages, by its name."""
    return bare_name(file).startswith("wiki-") and bare_name(file).endswith(".jsonl")


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A folder with the claims, and the pages in it or below it."""
    claims = one_of(path, f"{options.split}.jsonl")
    found = [file for file in files(path, ".jsonl") if is_pages(file)]
    if not found:
        raise ConfigError(f"{path}: has no wiki-pages/wiki-*.jsonl")
    with ExitStack() as opened:
        pages = [opened.enter_context(Offsets(file, options.limits, _page)) for file in found]
        for part in pages:
            yield from part.scan(unique=True)
        named = options._replace(source=options.source or path.name)
        yield from examples(claims, named, partial(_example, pages, named))


def _page(line: str) -> tuple[str, str]:
    values = parse_object(line)
    name = identity(values, "id")
    text = filled(values.get("text"), "text")
    return unicodedata.normalize("NFC", name), passage(
        {"title": _plain(name.replace("_", " ")), "text": _plain(text)}, "text"
    )


def _plain(text: str) -> str:
    for written, meant in _WRITTEN.items():
        text = text.replace(written, meant)
    return text


def _example(pages: Sequence[Offsets[str]], options: Options, line: Line, source: str) -> Example:
    values = parse_object(line.text)
    names = list(dict.fromkeys(_names(values.get("evidence"))))  # a page may hold several sentences
    if not names:
        raise RecordError(f"no evidence: {values.get('label')!r}")
    return Example(
        id=identity(values, "id"),
        query=values.get("claim", ""),
        positives=tuple(_found(pages, name) for name in names),
        instruction=options.instruction,
        language=options.language,
        source=source,
    )


def _names(evidence: Any) -> Iterator[str]:
    """Pages of the evidence, each as often as it is named."""
    try:
        for found in evidence:
            for _, _, name, _ in found:
                if name is not None:
                    yield unicodedata.normalize("NFC", name)
    except (TypeError, ValueError) as error:
        raise RecordError(
            "evidence: must be sets of [annotation, evidence, page, sentence]"
        ) from error


def _found(pages: Sequence[Offsets[str]], name: str) -> str:
    found = find_in(pages, name)
    if found is None:
        raise RecordError(f"page is not there: {name!r}")
    return found.value
