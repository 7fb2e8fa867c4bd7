"""`e5jax data prepare`: a public set from its publisher's files to array_record, with what was left out and a manifest.

Below `OUTPUT/NAME/VERSION` are the records, `rejects.txt` with one `file:line: reason` a line, and `manifest.json`: source,
licence, checksums of what was read, counts. Nothing in it depends on when and where it was made. The folder is whole or not there.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from tqdm import tqdm

from e5jax.data.prepared import MANIFEST
from e5jax.data.records import SCHEMA, Example
from e5jax.datasets.builder import VERSION, write
from e5jax.datasets.convert import Counts, accepted
from e5jax.datasets.public_sets import Set, in_mix
from e5jax.datasets.readers.formats import AUTO, detect, find, read
from e5jax.datasets.readers.lines import files, name_of
from e5jax.datasets.readers.result import LIMITS, Limits, Options, Outcome, Rejected
from e5jax.errors import ConfigError
from e5jax.workdir.directory import atomic_output, writing

REJECTS = "rejects.txt"
_LANGUAGES = {  # as Mr. TyDi spells them
    "arabic": "ar",
    "bengali": "bn",
    "english": "en",
    "finnish": "fi",
    "indonesian": "id",
    "japanese": "ja",
    "korean": "ko",
    "russian": "ru",
    "swahili": "sw",
    "telugu": "te",
    "thai": "th",
}
_HEX = re.compile(r"[0-9a-f]{64}")


class Order(NamedTuple):
    """What is to be prepared, from which files."""

    chosen: Set
    sources: Sequence[Path]  # files and folders, read one after the other
    revisions: Sequence[str] = ()  # of data sets of the hub that they are from
    format: str = AUTO
    language: str = ""  # empty: the set's, or the one that the names of the files tell
    sha256: Mapping[str, str] = MappingProxyType({})  # file name -> what the checksum must be
    limits: Limits = LIMITS

    def name(self, file: Path) -> str:
        """A file's name below the folder that holds all sources, wherever that is."""
        root = os.path.commonpath([source.absolute().parent for source in self.sources])
        return file.absolute().relative_to(root).as_posix()


def prepare(order: Order, output: Path) -> tuple[Path, Counts]:
    """Writes the set and says where, and how much of it. Raises ConfigError if there is not one example."""
    folder = output / order.chosen.name / VERSION
    _check(order)
    with writing("data prepare", folder, folder=True, inputs=order.sources):
        counts = _write(order, folder)
    return folder, counts


def _write(order: Order, folder: Path) -> Counts:
    sums = checksums(order)
    outcomes = chain.from_iterable(_outcomes(order, source) for source in order.sources)
    rejected: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    with atomic_output(folder, "data prepare") as made:
        rejects = made.with_name(REJECTS)
        with rejects.open("w", encoding="utf-8", newline="\n") as bad:
            examples = _instructed(order.chosen, accepted(outcomes, bad, rejected, "prepare"))
            first = next(examples, None)
            if first is None:
                raise ConfigError(
                    f"{', '.join(map(str, order.sources))}: not one example; {Counts(0, rejected)}"
                )
            count = write(order.chosen, _counted(chain([first], examples), languages), made)
        rejects.rename(made / REJECTS)
        text = json.dumps(
            _manifest(order, sums, Counts(count, rejected), languages), indent=2, ensure_ascii=False
        )
        (made / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return Counts(count, rejected)


def checksums(order: Order) -> dict[str, str]:
    """SHA-256 of every file of the sources, by its name there. Raises ConfigError for one that is not what it must be."""
    found: dict[str, str] = {}
    for source in order.sources:
        for file in tqdm(_read_for(order, source), desc="checksums", unit=" files", disable=None):
            with file.open("rb") as opened:
                found[order.name(file)] = hashlib.file_digest(opened, "sha256").hexdigest()
    for name, wanted in {**order.chosen.sha256, **order.sha256}.items():
        if not _HEX.fullmatch(wanted):
            raise ConfigError(f"--sha256 {name}={wanted}: must be 64 hexadecimal digits")
        have = [value for file, value in found.items() if name in (file, Path(file).name)]
        if name in order.sha256 and not have:
            raise ConfigError(
                f"--sha256 {name}: no such file was given; there are {', '.join(found)}"
            )
        if any(value != wanted for value in have):
            raise ConfigError(
                f"{name}: SHA-256 is {have[0]}, not {wanted}; download the file again"
            )
    return found


def language_of(chosen: Set, path: Path) -> str:
    """The language of a set that has one, or the one at the end of a folder's or file's name: `mrtydi-v1.1-finnish/train.jsonl`."""
    if len(chosen.languages) == 1:
        return chosen.languages[0]
    for part in reversed(path.parts):
        word = part.partition(".jsonl")[0].rpartition("-")[2]
        if (code := _LANGUAGES.get(word, word)) in chosen.languages:
            return code
    return ""


def _check(order: Order) -> None:
    """What can be told before files are read."""
    if order.format != AUTO:
        find(order.format)
    for source in order.sources:
        if not source.exists():
            raise ConfigError(f"{source}: no such file or folder")
        for file in files(source, ".jsonl") if _format(order, source) == "e5-mix" else ():
            held = in_mix(name_of(file))
            if held and held[0] is not order.chosen:
                raise ConfigError(
                    f"{file}: is {held[0].title} of the training mix, not {order.chosen.title}; prepare {held[0].name} from it"
                )


def _outcomes(order: Order, source: Path) -> Iterator[Outcome]:
    """What reading a source gives; rejections name files as the manifest does."""
    chosen = order.chosen
    language = order.language or language_of(chosen, source)
    options = Options(
        language=language, source=chosen.name, limits=order.limits, relevance=chosen.relevance
    )
    for outcome in read(source, _format(order, source), options):
        yield (
            outcome._replace(file=order.name(Path(outcome.file)))
            if isinstance(outcome, Rejected)
            else outcome
        )


def _read_for(order: Order, source: Path) -> list[Path]:
    """The files of a source; pairs of MS MARCO have their texts beside them."""
    beside = source.is_file() and _format(order, source) == "msmarco"
    return (
        [path for path in sorted(source.parent.iterdir()) if path.is_file()]
        if beside
        else files(source, "")
    )


def _format(order: Order, source: Path) -> str:
    """The one that was asked for, or is seen, or the set's own, whose files may have nothing to tell it by."""
    if order.format != AUTO:
        return order.format
    try:
        return detect(source, order.limits)
    except ConfigError:
        return order.chosen.formats[0]


def _instructed(chosen: Set, examples: Iterator[Example]) -> Iterator[Example]:
    """Examples that bring no instruction are given the set's, in turn where there are two."""
    for count, example in enumerate(examples):
        own = chosen.instructions[count % len(chosen.instructions)] if chosen.instructions else ""
        yield example if example.instruction else example._replace(instruction=own)


def _counted(examples: Iterator[Example], languages: Counter[str]) -> Iterator[Example]:
    for example in examples:
        languages[example.language] += 1
        yield example


def _manifest(
    order: Order, sums: Mapping[str, str], counts: Counts, languages: Counter[str]
) -> dict:
    chosen = order.chosen
    return {
        "schema": SCHEMA,
        "set": chosen.name,
        "title": chosen.title,
        "licence": chosen.licence,
        "published": chosen.files,
        "revisions": order.revisions,
        "format": sorted({_format(order, source) for source in order.sources}),
        "instructions": chosen.instructions,
        "ratio": chosen.ratio,
        "examples": counts.examples,
        "languages": dict(sorted(languages.items())),
        "rejected": dict(sorted(counts.rejected.items())),
        "sha256": sums,
    }
