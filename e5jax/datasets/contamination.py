"""Training examples that hold what a model will be evaluated on: examples flow in, those to keep flow out.

Evaluation texts come as `(id, text)`: from BEIR folders, or from JSONL that whoever can read the tasks of a benchmark has written.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from e5jax.data.files import objects
from e5jax.data.records import Example
from e5jax.datasets.example_texts import PARTS, Reason, Removed, excerpt, texts_of
from e5jax.datasets.minhash import SHORT, THRESHOLD, NearIndex, sketch
from e5jax.datasets.normalise import Words, ngrams, read
from e5jax.datasets.readers.beir import one_of
from e5jax.errors import ConfigError

NGRAM = 8  # words
SHARE = 0.7  # of the n-grams of the shorter text


class Hit(NamedTuple):
    """An evaluation text found in a training text."""

    id: str
    reason: Reason
    similarity: float


class Evaluation:
    """Evaluation texts, to be found in others. Use with `with`: it holds a temporary file.

    A text matches if it is equal or nearly equal to an evaluation text (`NearIndex`), contains `share` of the `NGRAM`-grams of
    one, or has `share` of its own in one. Texts of fewer than `SHORT` words match only as a whole. In memory: an index entry for
    each text, and 12 bytes a word.
    """

    def __init__(
        self, texts: Iterable[tuple[str, str]], threshold: float = THRESHOLD, share: float = SHARE
    ):
        self.share = share
        self._ids: list[str] = []
        self._sizes = array("q")  # n-grams of each text
        grams = [np.zeros(0, np.uint64)]
        with ExitStack() as opened:  # closed where reading the texts fails
            self._near = opened.enter_context(NearIndex(threshold))
            for name, text in texts:
                words = read(text)
                self._near.add(sketch(words))
                grams.append(_grams(words))
                self._ids.append(name)
                self._sizes.append(len(grams[-1]))
            self._open = opened.pop_all()
        owners = np.repeat(
            np.arange(len(self._ids), dtype=np.uint32), np.asarray(self._sizes, np.int64)
        )
        together = np.concatenate(grams)
        order = np.argsort(together, kind="stable")
        self._grams, self._owners = together[order], owners[order]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def tasks(self) -> Counter[str]:
        """How many texts of each task."""
        return Counter(map(task_of, self._ids))

    @property
    def places(self) -> dict[str, list[str]]:
        """The subsets and splits, as `default/test`, that the texts of a task are from, where ids name them."""
        found: dict[str, set[str]] = {}
        for parts in (name.split("/") for name in self._ids):
            if len(parts) == 5 and parts[3] in ("query", "document", "text"):
                found.setdefault(parts[0], set()).add(f"{parts[1]}/{parts[2]}")
        return {task: sorted(places) for task, places in found.items()}

    def find(self, text: str) -> Hit | None:
        """The evaluation text that this one matches, if any: equal before near before containment."""
        words = read(text)
        if match := self._near.find(sketch(words)):
            return Hit(
                self._ids[match.number], "equal" if match.equal else "near", match.similarity
            )
        return self._containment(words)

    def _containment(self, words: Words) -> Hit | None:
        own = _grams(words)
        starts, ends = (np.searchsorted(self._grams, own, side=side) for side in ("left", "right"))
        shared = Counter[int]()
        for start, end in zip(starts[ends > starts], ends[ends > starts], strict=True):
            shared.update(self._owners[start:end].tolist())
        best = Hit("", "contains", 0.0)
        for number, count in shared.items():
            reason = "contains" if self._sizes[number] <= len(own) else "contained"
            share = count / min(self._sizes[number], len(own))
            if share > best.similarity:
                best = Hit(self._ids[number], reason, share)
        return best if best.similarity >= self.share else None


def task_of(name: str) -> str:
    """The task of an evaluation text, by its id such as `NFCorpus/default/test/query/12`; empty if it names none."""
    task, slash, _ = name.partition("/")
    return task if slash else ""


def without_contamination(
    examples: Iterable[Example],
    evaluation: Evaluation,
    report: Callable[[Removed], object],
    parts: Sequence[str] = PARTS,
) -> Iterator[Example]:
    """Yields each example none of whose texts (of these parts) matches an evaluation text, and reports the others."""
    for example in examples:
        for part, text in texts_of(example):
            if part in parts and (hit := evaluation.find(text)):
                removed = Removed(
                    "contamination",
                    example.id,
                    example.source,
                    part,
                    hit.reason,
                    hit.id,
                    hit.similarity,
                    excerpt(text),
                )
                report(removed)
                break
        else:
            yield example


def evaluation_texts(paths: Iterable[Path], documents: bool = True) -> Iterator[tuple[str, str]]:
    """Texts of BEIR folders, and of JSONL files as `e5jax eval --texts` writes them; without `documents`, no text of a corpus."""
    for path in paths:
        yield from beir_texts(path, documents) if path.is_dir() else listed_texts(path, documents)


def beir_texts(folder: Path, documents: bool = True) -> Iterator[tuple[str, str]]:
    """Queries and, if wished, documents of a folder in BEIR layout, with ids such as `nq/queries/test12`.

    A document is its title and text, as models are given it. Raises ConfigError `file:line: reason`.
    """
    for kind in ("queries", "corpus") if documents else ("queries",):
        for values in _objects(one_of(folder, f"{kind}.jsonl"), "_id"):
            yield (
                f"{folder.name}/{kind}/{values['_id']}",
                f"{values.get('title') or ''} {values['text']}".strip(),
            )


def listed_texts(path: Path, documents: bool = True) -> Iterator[tuple[str, str]]:
    """Lines with `id`, `text` and perhaps `kind`. Raises ConfigError `file:line: reason`."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file or folder")
    for values in _objects(path, "id"):
        if documents or values.get("kind") != "document":
            yield values["id"], values["text"]


def _objects(path: Path, identity: str) -> Iterator[dict[str, Any]]:
    """Lines of a file that all have an id and a text."""
    for number, values in objects(path):
        if not all(isinstance(values.get(name), str) for name in (identity, "text")):
            raise ConfigError(f"{path}:{number}: no object with the strings {identity} and text")
        yield values


def _grams(words: Words) -> np.ndarray:
    return ngrams(words.words, NGRAM if words.length >= SHORT else len(words.words) + 1)
