"""Odd data files, a pure function of seed and number: encodings, compressions, line ends, suffixes, schemas and damage.

Each comes with what reading it must give: all its rows, all but one line, or a refusal.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import zstandard

from e5jax.data.records import Example

Fault = Literal["none", "line", "file", "damaged"]
Schema = Literal["texts", "records", "pairs"]

PIECES = [
    "river",
    "stone",
    "Ångström",
    "été",
    "雨が降る",
    "😀",
    'a "quote"',
    "comma, here",
    "{brace}",
    "semi;colon",
    "\u2028",
    "it's",
    "3.14",
]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": partial(gzip.compress, mtime=0),
    ".zst": zstandard.ZstdCompressor().compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


class Odd(NamedTuple):
    """A file to be written, and what is right."""

    name: str
    content: bytes
    schema: Schema
    rows: list[tuple[str, str]]  # id and text, or query and positive, of the lines without fault
    fault: Fault
    line: int  # of the fault, if that is in one line
    what: str  # for people

    def write(self, folder: Path) -> Path:
        """Writes it below a folder."""
        path = folder / self.name
        path.write_bytes(self.content)
        return path


class _Draft(NamedTuple):
    """A file before it is made odd. Lines have no ends."""

    suffix: str
    schema: Schema
    lines: list[bytes]  # empty for Parquet, which is `content`
    rows: list[tuple[str, str]]
    first: int  # line of the first row
    content: bytes = b""


def odd(seed: int, number: int) -> Odd:
    """File `number` of a seed."""
    random = np.random.default_rng([seed, number])
    drafts, changes = list(_DRAFTS.values()), list(_CHANGES.values())
    draft = drafts[number % len(drafts)](random)
    first = number // len(drafts) % len(changes)
    files = (change(draft, random) for change in (*changes[first:], *changes[:first]))
    return next(file for file in files if file is not None)


# --- schemas ---------------------------------------------------------------------------------------------------


def _text(random: np.random.Generator, breaks: str = "") -> str:
    words = [*random.choice(PIECES, random.integers(1, 8))]
    if breaks and random.random() < 0.3:
        words.insert(1, breaks)
    return " ".join(map(str, words)).strip() + f" {random.integers(10**9)}"


def _pairs(random: np.random.Generator, breaks: str = "") -> list[tuple[str, str]]:
    return [(f"é{n}", _text(random, breaks)) for n in range(random.integers(3, 7))]


def _json(values: object, random: np.random.Generator) -> bytes:
    return json.dumps(values, ensure_ascii=bool(random.random() < 0.5)).encode()


def _jsonl(random: np.random.Generator) -> _Draft:
    rows = _pairs(random, "\n")
    kind = random.integers(3)
    if kind == 0:
        objects = [{"id": name, "text": text} for name, text in rows]
    elif kind == 1:
        objects = [{"_id": name, "title": "T", "text": text} for name, text in rows]
        rows = [(name, f"T {text}") for name, text in rows]
    else:
        objects = [{"text": text, "more": [1, None]} for _, text in rows]
        rows = [("", text) for _, text in rows]
    return _Draft(".jsonl", "texts", [_json(each, random) for each in objects], rows, 1)


def _numbered(random: np.random.Generator) -> _Draft:
    rows = [(str(10**n), text) for n, (_, text) in enumerate(_pairs(random))]
    return _Draft(
        ".ndjson",
        "texts",
        [_json({"id": int(name), "text": text}, random) for name, text in rows],
        rows,
        1,
    )


def _array(random: np.random.Generator) -> _Draft:
    rows = _pairs(random, "\n")
    parts = [_json({"id": name, "text": text}, random) for name, text in rows]
    return _Draft(
        ".json", "texts", [b"[", *(part + b"," for part in parts[:-1]), parts[-1], b"]"], rows, 2
    )


def _table(
    random: np.random.Generator,
    names: Sequence[str],
    rows: Sequence[Sequence[object]],
    separator: str,
) -> list[bytes]:
    if separator == "\t":
        return ["\t".join(map(str, row)).encode() for row in (names, *rows)]
    out = io.StringIO()
    quoting = csv.QUOTE_ALL if random.random() < 0.5 else csv.QUOTE_MINIMAL
    csv.writer(out, quoting=quoting, lineterminator="\r").writerows([names, *rows])
    return out.getvalue().removesuffix("\r").encode().split(b"\r")


def _csv(random: np.random.Generator) -> _Draft:
    rows = _pairs(random)
    return _Draft(".csv", "texts", _table(random, ["id", "text"], rows, ","), rows, 2)


def _tsv(random: np.random.Generator) -> _Draft:
    rows = _pairs(random)
    return _Draft(
        ".tsv",
        "texts",
        _table(random, ["text", "_id"], [(text, name) for name, text in rows], "\t"),
        rows,
        2,
    )


def _txt(random: np.random.Generator) -> _Draft:
    rows = [("", text) for _, text in _pairs(random)]
    return _Draft(".txt", "texts", [text.encode() for _, text in rows], rows, 1)


def _parquet(random: np.random.Generator) -> _Draft:
    rows = _pairs(random, "\n")
    return _Draft(
        ".parquet",
        "texts",
        [],
        rows,
        1,
        _parquet_bytes({"id": [r[0] for r in rows], "text": [r[1] for r in rows]}),
    )


def _records(random: np.random.Generator) -> _Draft:
    rows = [(f"query {n} {name}", text) for n, (name, text) in enumerate(_pairs(random, "\n"))]
    examples = [
        Example(f"i{n}", query, (positive,), ("other",) * (n % 3))
        for n, (query, positive) in enumerate(rows)
    ]
    return _Draft(
        ".jsonl", "records", [example.to_json().encode() for example in examples], rows, 1
    )


def _pair_lines(random: np.random.Generator) -> _Draft:
    rows = [(f"query {name}", text) for name, text in _pairs(random, "\n")]
    labelled = bool(random.random() < 0.5)
    objects = [
        {"anchor": query, "positive": positive} | ({"label": 1} if labelled else {})
        for query, positive in rows
    ]
    return _Draft(".jsonl", "pairs", [_json(each, random) for each in objects], rows, 1)


def _pair_csv(random: np.random.Generator) -> _Draft:
    rows = [(f"query {name}", text) for name, text in _pairs(random)]
    return _Draft(
        ".csv",
        "pairs",
        _table(random, ["anchor", "positive", "score"], [(*row, "1.0") for row in rows], ","),
        rows,
        2,
    )


def _pair_tsv(random: np.random.Generator) -> _Draft:
    rows = [(f"query {name}", text) for name, text in _pairs(random)]
    return _Draft(".tsv", "pairs", _table(random, ["anchor", "positive"], rows, "\t"), rows, 2)


def _pair_parquet(random: np.random.Generator) -> _Draft:
    rows = [(f"query {name}", text) for name, text in _pairs(random, "\n")]
    columns = {"anchor": [query for query, _ in rows], "positive": [text for _, text in rows]}
    return _Draft(".parquet", "pairs", [], rows, 1, _parquet_bytes(columns))


def _parquet_bytes(columns: dict[str, list]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pyarrow.table(columns), out)
    return out.getvalue()


_DRAFTS: dict[str, Callable[[np.random.Generator], _Draft]] = {
    "texts jsonl": _jsonl,
    "texts ndjson": _numbered,
    "texts array": _array,
    "texts csv": _csv,
    "texts tsv": _tsv,
    "texts txt": _txt,
    "texts parquet": _parquet,
    "records": _records,
    "pairs jsonl": _pair_lines,
    "pairs csv": _pair_csv,
    "pairs tsv": _pair_tsv,
    "pairs parquet": _pair_parquet,
}


# --- changes ---------------------------------------------------------------------------------------------------
# Each gives the file, or None where it makes no sense of the draft.


def _join(lines: Sequence[bytes], end: bytes = b"\n", *, last: bool = True) -> bytes:
    return end.join(lines) + (end if last else b"")


def _made(
    draft: _Draft, what: str, content: bytes | None = None, fault: Fault = "none", **changes
) -> Odd:
    name = f"x{changes.pop('suffix', draft.suffix)}"
    content = (draft.content or _join(draft.lines)) if content is None else content
    rows = draft.rows if fault in ("none", "damaged") else []
    return Odd(
        **(
            {
                "name": name,
                "content": content,
                "schema": draft.schema,
                "rows": rows,
                "fault": fault,
                "line": 0,
            }
            | changes
        ),
        what=what,
    )


def _plain(draft: _Draft, _: np.random.Generator) -> Odd:
    return _made(draft, "as it should be")


def _bom(draft: _Draft, _: np.random.Generator) -> Odd | None:
    return _made(draft, "BOM", b"\xef\xbb\xbf" + _join(draft.lines)) if draft.lines else None


def _windows(draft: _Draft, random: np.random.Generator) -> Odd | None:
    return (
        _made(draft, "CR LF", _join(draft.lines, b"\r\n", last=bool(random.integers(2))))
        if draft.lines
        else None
    )


def _mac(draft: _Draft, _: np.random.Generator) -> Odd | None:
    if (
        not draft.lines or draft.suffix == ".json"
    ):  # an array's line ends are nothing but white space
        return None
    return _made(draft, "CR", _join(draft.lines, b"\r"), "file")


def _unended(draft: _Draft, _: np.random.Generator) -> Odd | None:
    return _made(draft, "no last newline", _join(draft.lines, last=False)) if draft.lines else None


def _blank(draft: _Draft, random: np.random.Generator) -> Odd | None:
    """Blank lines before the first, between, and behind the last; of a text file they are rows."""
    if not draft.lines or draft.suffix == ".txt":
        return None
    lines = list(draft.lines)
    for _ in range(3):
        lines.insert(
            int(random.integers(len(lines) + 1)),
            [b"", b" ", b"\t", b"\r"][random.integers(1 if draft.suffix == ".tsv" else 4)],
        )
    return _made(draft, "blank lines", _join(lines))


def _compressed(draft: _Draft, random: np.random.Generator) -> Odd:
    suffix = list(COMPRESS)[random.integers(len(COMPRESS))]
    if not draft.lines:
        return _made(
            draft,
            f"Parquet in {suffix}",
            COMPRESS[suffix](draft.content),
            "file",
            suffix=draft.suffix + suffix,
        )
    cut = int(random.integers(len(_join(draft.lines))))
    content = _join(draft.lines)
    return _made(
        draft,
        f"two streams of {suffix}",
        COMPRESS[suffix](content[:cut])
        + COMPRESS[suffix](content[cut:])
        + bytes(4 * (suffix in (".gz", ".xz"))),
        suffix=draft.suffix + suffix,
    )


def _compressed_unnamed(draft: _Draft, random: np.random.Generator) -> Odd | None:
    suffix = list(COMPRESS)[random.integers(len(COMPRESS))]
    return (
        _made(draft, f"{suffix} without its suffix", COMPRESS[suffix](_join(draft.lines)))
        if draft.lines
        else None
    )


def _truncated(draft: _Draft, random: np.random.Generator) -> Odd:
    suffix = list(COMPRESS)[random.integers(len(COMPRESS))]
    content = COMPRESS[suffix](draft.content or _join(draft.lines))
    fault: Fault = "damaged" if draft.lines else "file"
    return _made(
        draft,
        f"{suffix} cut off",
        content[: -int(random.integers(5, 12))],
        fault,
        suffix=draft.suffix + suffix,
    )


def _flipped(draft: _Draft, _: np.random.Generator) -> Odd | None:
    if not draft.lines:
        return None
    content = bytearray(gzip.compress(_join(draft.lines), mtime=0))
    content[-6] ^= 255  # of the checksum
    return _made(
        draft, "gzip with a wrong checksum", bytes(content), "damaged", suffix=draft.suffix + ".gz"
    )


def _recoded(draft: _Draft, random: np.random.Generator) -> Odd | None:
    encoding = ["utf-16", "utf-16-le", "utf-32", "utf-16-be"][random.integers(4)]
    if not draft.lines:
        return None
    return _made(draft, encoding, _join(draft.lines).decode().encode(encoding), "file")


def _latin(draft: _Draft, random: np.random.Generator) -> Odd | None:
    """One line in Latin-1, as when files were put together."""
    return _changed_line(draft, random, "Latin-1", lambda line: line + "été".encode("latin-1"))


def _nul(draft: _Draft, random: np.random.Generator) -> Odd | None:
    return _changed_line(
        draft, random, "NUL", lambda line: line[: len(line) // 2] + b"\0" + line[len(line) // 2 :]
    )


def _changed_line(
    draft: _Draft, random: np.random.Generator, what: str, change: Callable[[bytes], bytes]
) -> Odd | None:
    if not draft.lines:
        return None
    row = int(random.integers(1, len(draft.rows)))
    if draft.suffix == ".csv" and len(draft.lines) != len(draft.rows) + 1:
        return None
    lines = list(draft.lines)
    place = row + draft.first - 1
    lines[place] = change(lines[place])
    rows = [each for number, each in enumerate(draft.rows) if number != row]
    return _made(draft, what, _join(lines), "line", rows=rows, line=place + 1)


_JSON_FAULTS: dict[str, Callable[[dict], bytes]] = {
    "NaN": lambda o: json.dumps(o | {"more": float("nan")}).encode(),
    "Infinity": lambda o: json.dumps(o | {"more": float("-inf")}).encode(),
    "a name twice": lambda o: (
        json.dumps(o).encode()[:-1] + f', "{list(o)[-1]}": "again"}}'.encode()
    ),
    "a huge number": lambda o: json.dumps(o).encode()[:-1] + b', "more": ' + b"9" * 5_000 + b"}",
    "nested deeply": lambda o: (
        json.dumps(o).encode()[:-1] + b', "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    ),
    "an array": lambda o: json.dumps(list(o.values())[:1]).encode(),
    "a string": lambda _: b'"text"',
    "cut off": lambda o: json.dumps(o).encode()[:-3],
    "text is a number": lambda o: json.dumps(
        {name: 3 if isinstance(value, str) else value for name, value in o.items()}
    ).encode(),
    "text is missing": lambda o: json.dumps({"id": o.get("id", "1")}).encode(),
    "two objects": lambda o: json.dumps(o).encode() * 2,
    "escaped NUL": lambda o: json.dumps(
        {name: "\0" if isinstance(value, str) else value for name, value in o.items()}
    ).encode(),
}


def _json_fault(draft: _Draft, random: np.random.Generator) -> Odd | None:
    if draft.suffix not in (".jsonl", ".ndjson"):
        return None
    what = list(_JSON_FAULTS)[random.integers(len(_JSON_FAULTS))]
    return _changed_line(
        draft, random, f"JSON: {what}", lambda line: _JSON_FAULTS[what](json.loads(line))
    )


def _id_fault(draft: _Draft, random: np.random.Generator) -> Odd | None:
    """Texts of which one has no id, or one that is none."""
    if draft.schema != "texts" or draft.suffix not in (".jsonl", ".ndjson") or not draft.rows[0][0]:
        return None
    value = [None, "", True, 1.5, ["x"]][random.integers(5)]
    name = "_id" if b'"_id"' in draft.lines[0] else "id"
    return _changed_line(
        draft,
        random,
        f"id {value!r}",
        lambda line: json.dumps(json.loads(line) | {name: value}).encode(),
    )


def _label_fault(draft: _Draft, random: np.random.Generator) -> Odd | None:
    value = [0, -1, 0.4, 3, False, "0", "no", None][random.integers(8)]
    if draft.schema != "pairs" or draft.suffix == ".tsv" or not draft.lines:
        return None
    if draft.suffix == ".csv":
        return _changed_line(
            draft,
            random,
            f"score {value!r}",
            lambda line: line.replace(b"1.0", str(value).encode()),
        )
    return _changed_line(
        draft,
        random,
        f"label {value!r}",
        lambda line: json.dumps(json.loads(line) | {"label": value}).encode(),
    )


def _table_fault(draft: _Draft, random: np.random.Generator) -> Odd | None:
    if draft.suffix not in (".csv", ".tsv"):
        return None
    if random.random() < 0.5:
        return _changed_line(
            draft,
            random,
            "one field more",
            lambda line: line + (b"," if draft.suffix == ".csv" else b"\t") + b"x",
        )
    return _changed_line(draft, random, "one field", lambda _: b"x")


def _quote_fault(draft: _Draft, random: np.random.Generator) -> Odd | None:
    if draft.suffix != ".csv":
        return None
    return _changed_line(
        draft, random, "a quote that is not closed", lambda line: b'"' + line.replace(b'"', b"")
    )


def _headless(draft: _Draft, random: np.random.Generator) -> Odd | None:
    if draft.suffix not in (".csv", ".tsv"):
        return None
    if random.random() < 0.5:
        return _made(draft, "no header", _join(draft.lines[1:]), "file")
    return _made(draft, "a header alone", draft.lines[0] + b"\n", "file")


def _strange_suffix(draft: _Draft, random: np.random.Generator) -> Odd:
    """JSON objects and Parquet are known without a suffix; of all else it would be a guess."""
    suffix = ["", ".data", ".jl", ".00", ".log"][random.integers(5)]
    known = draft.suffix in (".jsonl", ".ndjson", ".parquet")
    return _made(draft, f"suffix {suffix!r}", None, "none" if known else "file", suffix=suffix)


def _capitals(draft: _Draft, _: np.random.Generator) -> Odd:
    return _made(draft, "suffix in capitals", suffix=draft.suffix.upper())


def _as_json(draft: _Draft, _: np.random.Generator) -> Odd | None:
    return (
        _made(draft, "JSON lines called .json", suffix=".json")
        if draft.suffix in (".jsonl", ".ndjson")
        else None
    )


def _wrong_suffix(draft: _Draft, random: np.random.Generator) -> Odd | None:
    """A name that says something else than the content."""
    others = {
        ".jsonl": [".csv", ".txt", ".tsv", ".parquet"],
        ".parquet": [".jsonl", ".txt", ".csv"],
        ".json": [".txt", ".csv", ".jsonl"],
    }
    others |= {
        ".ndjson": others[".jsonl"],
        ".csv": [".jsonl", ".parquet", ".json", ".tsv"],
        ".tsv": [".jsonl", ".csv", ".parquet"],
    }
    others[".txt"] = [".jsonl", ".csv", ".tsv", ".parquet", ".json"]
    choices = others[draft.suffix]
    suffix = choices[random.integers(len(choices))]
    return _made(draft, f"{draft.suffix} called {suffix}", None, "file", suffix=suffix)


def _empty(draft: _Draft, random: np.random.Generator) -> Odd:
    content = [b"", b"\n", b"\xef\xbb\xbf", b" \r\n\n"][
        random.integers(1 if draft.suffix in (".txt", ".parquet") else 4)
    ]
    return _made(draft, f"empty: {content!r}", content, "file")


def _binary(draft: _Draft, random: np.random.Generator) -> Odd:
    magic = [b"PK\x03\x04", b"\x89PNG\r\n", b"SQLite format 3\0", b"ARROW1\0\0", b"\x7fELF"][
        random.integers(5)
    ]
    return _made(draft, f"binary: {magic!r}", magic + random.bytes(3_000), "file")


def _long(draft: _Draft, random: np.random.Generator) -> Odd | None:
    """A line beyond the cap, in one of a few files: it is 17 MB."""
    if draft.suffix not in (".jsonl", ".txt") or random.random() < 0.5:
        return None
    return _changed_line(
        draft, random, "17 MB in a line", lambda line: line[:-2] + b"x" * (17 << 20) + line[-2:]
    )


_CHANGES: dict[str, Callable[[_Draft, np.random.Generator], Odd | None]] = {
    change.__name__: change
    for change in (
        _bom,
        _compressed,
        _strange_suffix,
        _json_fault,
        _wrong_suffix,
        _windows,
        _blank,
        _truncated,
        _recoded,
        _label_fault,
        _mac,
        _table_fault,
        _id_fault,
        _latin,
        _unended,
        _compressed_unnamed,
        _nul,
        _capitals,
        _empty,
        _headless,
        _binary,
        _as_json,
        _quote_fault,
        _flipped,
        _long,
    )
}
