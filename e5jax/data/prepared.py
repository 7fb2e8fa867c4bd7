"""Examples of a folder that `e5jax data prepare` wrote: array_record files, read at random without TFDS.

A record is a tf.train.Example with a feature for each field of an example; TFDS writes it, protobuf alone reads it.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from e5jax.data.records import SCHEMA, Example, check_example
from e5jax.errors import ConfigError, RecordError

MANIFEST = "manifest.json"
FILES = "*.array_record-*"
_TEXTS = ("positives", "negatives")
_SCORES = ("positive_scores", "negative_scores")
_TEXT = tuple(name for name in Example._fields if name not in _TEXTS + _SCORES)
_AT_RANDOM = "readahead_buffer_size:0"
_BUFFER = 32 << 10  # bytes read at once
_DAMAGED = (
    RuntimeError,
    ValueError,
    IndexError,
)  # what array_record raises for files that are not whole


class Prepared:
    """The examples of one folder, in order. Safe to read from many threads; a pickled copy opens the files anew."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._readers = _open(folder)
        self._ends = list(accumulate(reader.num_records() for reader in self._readers))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict:
        return {"folder": self.folder}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def __getitem__(self, index: int) -> Example:
        try:
            return self._example(index)
        except RecordError as error:
            raise ConfigError(f"{self.folder}: record {index}: {error}") from error

    def scan(self, digest: "hashlib._Hash") -> Iterator[tuple[str, Example | str]]:
        """Where each example is, and itself or what is wrong with it. The digest is fed what the examples say, not the files."""
        digest.update(f"{len(self)} records\n".encode())
        for index in range(len(self)):
            try:
                found: Example | str = check_example(self._example(index))
                digest.update(f"{found.to_json()}\n".encode())
            except RecordError as error:
                found = str(error)
            yield f"{self.folder}: record {index}", found

    def _example(self, index: int) -> Example:
        file = bisect_right(self._ends, index)
        reader = self._readers[file]
        place = index - self._ends[file] + reader.num_records()
        try:
            (record,) = reader.read(
                place, place + 1
            )  # read([place]) looks at all records of the file
        except _DAMAGED as error:
            raise RecordError(f"its file is damaged: {error}") from error
        return decode(record)


def is_prepared(path: Path) -> bool:
    """Whether `prepare` wrote this folder, and to the end."""
    return (path / MANIFEST).is_file()


def _open(folder: Path) -> list[ArrayRecordReader]:
    """A reader of each file; together they have as many records as the manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        schema, examples = manifest["schema"], manifest["examples"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder / MANIFEST}: is not what `e5jax data prepare` writes ({error}); prepare the set again"
        ) from error
    if schema != SCHEMA:
        raise ConfigError(
            f"{folder}: schema {schema!r}: this e5jax reads schema {SCHEMA}; prepare the set again"
        )
    files = sorted(map(str, folder.glob(FILES)))
    readers = [
        ArrayRecordReader(file, options=_AT_RANDOM, file_reader_buffer_size=_BUFFER)
        for file in files
    ]
    records = sum(reader.num_records() for reader in readers)  # of a file that is not whole: 0
    if records != examples:
        raise ConfigError(
            f"{folder}: has {records} records, and its manifest says {examples}: files are damaged or missing; "
            "prepare the set again"
        )
    return readers


def decode(record: bytes) -> Example:
    """One example, its fields not checked. Raises RecordError."""
    try:
        features = _message().FromString(record).features.feature
        values: dict[str, Any] = {
            name: features[name].bytes_list.value[0].decode("utf-8") for name in _TEXT
        }
        values |= {
            name: tuple([text.decode("utf-8") for text in features[name].bytes_list.value])
            for name in _TEXTS
        }
        values |= {name: tuple(features[name].float_list.value) for name in _SCORES}
    except (DecodeError, UnicodeDecodeError, IndexError) as error:
        raise RecordError(f"not a record of an example: {error}") from error
    if unknown := sorted(set(features) - set(Example._fields)):
        raise RecordError(f"not a record of an example: it has {', '.join(unknown)}")
    return Example(**values)


@cache
def _message() -> Any:
    """The class of tf.train.Example, whose definition is a part of TensorFlow."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="example.proto", package="e5jax", syntax="proto3"
    )

    def add(holder: Any, name: str, *fields: tuple[str, int, Any, Any, str]) -> Any:
        made = holder.add(name=name)
        for field_name, number, label, kind, of in fields:
            made.field.add(
                name=field_name, number=number, label=label, type=kind, type_name=of or None
            )
        return made

    one, many, holds = field.LABEL_OPTIONAL, field.LABEL_REPEATED, field.TYPE_MESSAGE
    add(file.message_type, "BytesList", ("value", 1, many, field.TYPE_BYTES, ""))
    add(file.message_type, "FloatList", ("value", 1, many, field.TYPE_FLOAT, ""))
    lists = (
        ("bytes_list", 1, one, holds, ".e5jax.BytesList"),
        ("float_list", 2, one, holds, ".e5jax.FloatList"),
    )
    add(file.message_type, "Feature", *lists)
    features = add(
        file.message_type, "Features", ("feature", 1, many, holds, ".e5jax.Features.FeatureEntry")
    )
    entry = (("key", 1, one, field.TYPE_STRING, ""), ("value", 2, one, holds, ".e5jax.Feature"))
    add(features.nested_type, "FeatureEntry", *entry).options.map_entry = True
    add(file.message_type, "Example", ("features", 1, one, holds, ".e5jax.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("e5jax.Example"))
