"""The texts that negatives come from: distinct ones, found again by a hash, read from disk when they are needed."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from e5jax.errors import ConfigError
from e5jax.mine.lines import Lines
from e5jax.workdir import complete


def key(text: str) -> int:
    """64 bits that stand for a text; among a million texts two share them once in 37 million corpora."""
    return int.from_bytes(hashlib.blake2b(_bytes(text), digest_size=8).digest(), "little")


class Corpus(Sequence[str]):
    """The distinct texts of a JSONL file (`text`, optionally `title` and `id` or `_id`, as in BEIR), or of the lines of any other.

    A text that comes again is left out: its first place stands for all. Raises ConfigError `file:line: reason`.
    """

    def __init__(self, path: Path):
        self._lines, self._json = Lines(path), path.suffix in (".jsonl", ".json")
        keys, ids, digest = array("Q"), array("Q"), hashlib.sha256()
        for index in range(len(self._lines)):
            name, text = self._read(index)
            keys.append(key(text))
            ids.append(key(name))
            digest.update(keys[-1].to_bytes(8, "little"))
        if not keys:
            raise ConfigError(f"--corpus={path}: no texts in it")
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
        return self._read(int(self._first[index]))[1]

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

    def _read(self, index: int) -> tuple[str, str]:
        """Id (empty for none) and text."""
        line, where = self._lines[index], self._lines.where(index)
        try:
            if not self._json:
                return "", line.decode("utf-8").strip()
            values = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{where}: not {'JSON' if self._json else 'UTF-8'} ({error})") from error
        if not isinstance(values, dict) or not isinstance(values.get("text"), str):
            raise ConfigError(f"{where}: not a JSON object with a string `text`")
        title, name = values.get("title") or "", values.get("id", values.get("_id", ""))
        text = f"{title} {values['text']}".strip()
        if not text:
            raise ConfigError(f"{where}: text is empty")
        return str(name), text


def write_corpus(path: Path, texts: Iterable[str]) -> None:
    """A corpus of these texts."""
    with complete(path, "mine") as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def digest_of(texts: Sequence[str]) -> str:
    """The fingerprint of texts that are not a file's."""
    return hashlib.sha256(b"".join(key(text).to_bytes(8, "little") for text in texts)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON can hold half a surrogate pair
