"""The texts that negatives come from: distinct ones, found again by a hash, read from disk when they are needed."""

import hashlib
import json
import os
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from e5jax.data.files import kind_of, temporary_copy
from e5jax.errors import ConfigError
from e5jax.inference.text_files import read_rows
from e5jax.workdir.directory import atomic_output


def key(text: str) -> int:
    """64 bits that stand for a text; among a million texts two share them once in 37 million corpora."""
    return int.from_bytes(hashlib.blake2b(_bytes(text), digest_size=8).digest(), "little")


class Corpus(Sequence[str]):
    """The distinct texts of a file (see `encode.texts`), without white space around them, kept in a temporary file.

    A text that comes again is left out: its first place stands for all. Raises ConfigError `file:line: reason`.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such file")
        keys, ids, ends, digest = array("Q"), array("Q"), array("q", [0]), hashlib.sha256()

        def contents() -> Iterator[bytes]:
            for name, text in _texts(path):
                keys.append(key(text))
                ids.append(key(name))
                digest.update(keys[-1].to_bytes(8, "little"))
                content = _bytes(text)
                ends.append(ends[-1] + len(content))
                yield content

        self._descriptor = temporary_copy(contents(), path)
        weakref.finalize(self, os.close, self._descriptor)
        if not keys:
            raise ConfigError(f"--corpus={path}: no texts in it")
        self._ends = np.array(ends, np.int64)
        # One text may have several ids, so ids point to texts and not to lines.
        self._ids, lines = np.unique(np.array(ids, np.uint64), return_index=True)
        self._of_id = np.array(keys, np.uint64)[lines]
        self._keys, first = np.unique(np.array(keys, np.uint64), return_index=True)
        order = np.argsort(first)
        self._first = first[order]
        self.keys = self._keys[order]  # of the texts, in their order
        self._place = np.empty_like(order)
        self._place[order] = np.arange(len(order))
        self.duplicates = len(keys) - len(first)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._first)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._read(int(self._first[index]))

    def place(self, text: str) -> int | None:
        """Where this text is."""
        return self._place_of(np.uint64(key(text)))

    def place_of_id(self, name: str) -> int | None:
        """Where the text with this id is."""
        wanted = np.uint64(key(name))
        at = int(np.searchsorted(self._ids, wanted))
        found = name and at < len(self._ids) and self._ids[at] == wanted
        return self._place_of(self._of_id[at]) if found else None

    def _place_of(self, wanted: np.uint64) -> int | None:
        at = int(np.searchsorted(self._keys, wanted))
        return int(self._place[at]) if at < len(self._keys) and self._keys[at] == wanted else None

    def _read(self, row: int) -> str:
        start, end = self._ends[row : row + 2].tolist()
        return os.pread(self._descriptor, end - start, start).decode("utf-8", "surrogatepass")


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Id (empty for none) and text of each row. Blank lines of text are no rows."""
    is_text = kind_of(path) == "text"
    for number, row in read_rows(path):
        if text := row.text.strip():
            yield row.id, text
        elif not is_text:
            raise ConfigError(f"{path}:{number}: text is empty")


def write_corpus(path: Path, texts: Iterable[str]) -> None:
    """A corpus of these texts."""
    with (
        atomic_output(path, "mine") as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def digest_of(texts: Sequence[str]) -> str:
    """The fingerprint of texts that are not a file's."""
    return hashlib.sha256(b"".join(key(text).to_bytes(8, "little") for text in texts)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON can hold half a surrogate pair
