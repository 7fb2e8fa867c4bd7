"""Lines with something wrong in them, over all readers: none crashes one, and the good lines around them are kept.

MUTATED_LINES=100000 in the environment tries that many, which takes as many times longer.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e5jax.data.records import Example, check_example
from e5jax.datasets.readers.formats import read
from e5jax.datasets.readers.result import Limits, Options, Rejected

ALL = int(os.environ.get("MUTATED_LINES", "10000"))
LINES = 20  # mutated ones in a file, each between two good ones
JUNK = [
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b'"',
    b'""',
    b"'",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\t",
    b"\r",
    b"\n",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b'[[["x"]]]',
    b'"query": "again", ',
    b'"positives": NaN',
    b"[" * 5_000,
    b'{"a":' * 5_000,
    b"9" * 5_000,
    b"x" * 9_000,
    " \u2028\x85".encode(),
    "\ufeff".encode(),
    b"]}",
    b'}, {"question": ',
]


class Kind(NamedTuple):
    """How to write good entry number i of a format, and what reading it gives; `join` makes a file of entries."""

    name: str
    file: str
    entry: Callable[[int], bytes]
    example: Callable[[int], Example]
    join: Callable[[Sequence[bytes]], bytes]
    beside: Callable[[int], dict[str, bytes]] | None = (
        None  # other files, for entries below this number
    )


def dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def text(i: int) -> str:
    return f'é "{i}", 😀 {{"n": [{i}]}}'


def passage(i: int, what: str) -> dict:
    return {"docid": f"{what}{i}", "title": what, "text": text(i)}


def lines(entries: Sequence[bytes]) -> bytes:
    return b"".join(entry + b"\n" for entry in entries)


def after(header: bytes) -> Callable[[Sequence[bytes]], bytes]:
    return lambda entries: lines([header, *entries])


def array(indent: bytes) -> Callable[[Sequence[bytes]], bytes]:
    return lambda entries: b"[" + indent + (b"," + indent).join(entries) + indent.rstrip() + b"]"


def quoted(i: int) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(
        [f"q{i}", text(i), f"two\nlines {i}" if i % 3 else "one"]
    )
    return out.getvalue().removesuffix("\n").encode()


def beside_qrels(count: int) -> dict[str, bytes]:
    corpus = lines([dumps({"_id": f"d{i}", "title": "", "text": text(i)}) for i in range(count)])
    queries = lines([dumps({"_id": f"q{i}", "text": f"ask {i}"}) for i in range(count)])
    return {"corpus.jsonl": corpus, "queries.jsonl": queries}


def beside_triples(count: int) -> dict[str, bytes]:
    collection = lines([f"{i}\tpassage {i}".encode() for i in range(count)])
    return {
        "collection.tsv": collection,
        "queries.train.tsv": lines([f"{i}\task {i}".encode() for i in range(count)]),
    }


def pages(count: int) -> dict[str, bytes]:
    return {
        "wiki-pages/wiki-001.jsonl": lines(
            [dumps({"id": f"P_{i}", "text": text(i)}) for i in range(count)]
        )
    }


def beside_miracl(count: int) -> dict[str, bytes]:
    docs = lines([dumps({"docid": f"{i}#0", "title": "d", "text": text(i)}) for i in range(count)])
    topics = lines([f"{i}#0\task {i}".encode() for i in range(count)])
    return {"corpus-fi/docs-0.jsonl": docs, "topics.miracl-v1.0-fi-train.tsv": topics}


def sure(i: int) -> str:
    """A question that no mutation of another turns into: neighbours with one question are one example."""
    return f"ask {i} of {'abcdefgh'[i % 8] * 8}"


def duplicates(i: int) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter="\t", lineterminator="\n").writerow(
        [i, f"a{i}-{i}", f"b{i}-{i}", f"q{i}", text(i), 1]
    )
    return out.getvalue().removesuffix("\n").encode()


KINDS = [
    Kind(
        "e5jax",
        "x.jsonl",
        lambda i: (
            Example(f"i{i}", f"q{i}", (text(i), "p"), ("n",), "t", "en", "s", (1.0, 2.0), (0.5,))
            .to_json()
            .encode()
        ),
        lambda i: Example(
            f"i{i}", f"q{i}", (text(i), "p"), ("n",), "t", "en", "s", (1.0, 2.0), (0.5,)
        ),
        lines,
    ),
    Kind(
        "e5-mix",
        "fever.jsonl",
        lambda i: dumps({"query": f"q{i}", "positive": text(i), "negative": ["n", "m"]}),
        lambda i: Example("?", f"q{i}", (text(i),), ("n", "m"), "T", "", "fever"),
        lines,
    ),
    Kind(
        "pairs",
        "x.jsonl",
        lambda i: dumps({"anchor": f"q{i}", "positive": text(i), "negative_1": "n"}),
        lambda i: Example("?", f"q{i}", (text(i),), ("n",), "T", "", "x"),
        lines,
    ),
    Kind(
        "pairs",
        "x.csv",
        quoted,
        lambda i: Example(
            "?", f"q{i}", (text(i),), (f"two\nlines {i}" if i % 3 else "one",), "T", "", "x"
        ),
        after(b"anchor,positive,negative"),
    ),
    Kind(
        "pairs",
        "x.tsv",
        lambda i: f"q{i}\t{text(i)}".encode(),
        lambda i: Example("?", f"q{i}", (text(i),), (), "T", "", "x"),
        after(b"anchor\tpositive"),
    ),
    Kind(
        "tevatron",
        "x.jsonl",
        lambda i: dumps(
            {
                "query_id": str(i),
                "query": f"q{i}",
                "positive_passages": [passage(i, "p")],
                "negative_passages": [passage(i, "n")],
            }
        ),
        lambda i: Example(str(i), f"q{i}", (f"p {text(i)}",), (f"n {text(i)}",), "T", "", "x"),
        lines,
    ),
    *(
        Kind(
            "dpr",
            "x.json",
            lambda i: dumps(
                {
                    "dataset": "nq",
                    "question": f"q{i}",
                    "answers": ["a"],
                    "positive_ctxs": [passage(i, "p")],
                    "negative_ctxs": [],
                    "hard_negative_ctxs": [passage(i, "n")],
                }
            ),
            lambda i: Example("?", f"q{i}", (f"p {text(i)}",), (f"n {text(i)}",), "T", "", "x"),
            array(indent),
        )
        for indent in (b"\n    ", b" ")
    ),
    Kind(
        "beir",
        "qrels/train.tsv",
        lambda i: f"q{i}\td{i}\t1".encode(),
        lambda i: Example(f"q{i}", f"ask {i}", (text(i),), (), "T", "", "set"),
        after(b"query-id\tcorpus-id\tscore"),
        beside_qrels,
    ),
    Kind(
        "msmarco",
        "qidpidtriples.train.tsv",
        lambda i: f"{i}\t{i}\t{max(i - 1, 0)}".encode(),
        lambda i: Example(
            "?", f"ask {i}", (f"passage {i}",), (f"passage {max(i - 1, 0)}",), "T", "", "set"
        ),
        lines,
        beside_triples,
    ),
    Kind(
        "miracl",
        "qrels.miracl-v1.0-fi-train.tsv",
        lambda i: f"{i}#0\tQ0\t{i}#0\t1".encode(),
        lambda i: Example(f"{i}#0", f"ask {i}", (f"d {text(i)}",), (), "T", "fi", "set"),
        lines,
        beside_miracl,
    ),
    Kind(
        "hotpotqa",
        "x.json",
        lambda i: dumps(
            {
                "_id": f"i{i}",
                "question": f"q{i}",
                "context": [["a", [text(i)]], ["b", ["n"]]],
                "supporting_facts": [["a", 0]],
            }
        ),
        lambda i: Example(f"i{i}", f"q{i}", (f"a {text(i)}",), ("b n",), "T", "", "x"),
        array(b"\n"),
    ),
    Kind(
        "fever",
        "train.jsonl",
        lambda i: dumps(
            {"id": i, "label": "SUPPORTS", "claim": f"q{i}", "evidence": [[[1, 2, f"P_{i}", 0]]]}
        ),
        lambda i: Example(str(i), f"q{i}", (f"P {i} {text(i)}",), (), "T", "", "set"),
        lines,
        pages,
    ),
    Kind(
        "votes",
        "x.jsonl",
        lambda i: dumps(
            {
                "id": f"i{i}",
                "input": f"q{i}",
                "output": [{"answer": text(i), "meta": {"score": 2}}, {"answer": "n"}],
            }
        ),
        lambda i: Example(f"i{i}", f"q{i}", (text(i),), (), "T", "", "x"),
        lines,
    ),
    Kind(
        "quora",
        "x.tsv",
        duplicates,
        lambda i: Example("?", f"q{i}", (text(i),), (), "T", "", "x"),
        after(b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate"),
    ),
    Kind(
        "rocketqa",
        "x.tsv",
        lambda i: f"{sure(i)}\t\t{text(i)}\tt\tn\t0".encode(),
        lambda i: Example("?", sure(i), (text(i),), ("t n",), "T", "", "x"),
        lines,
    ),
]
NAMES = [
    f"{kind.name} {kind.file}{' one line' if kind.join([b'', b'']) == b'[ ,  ]' else ''}"
    for kind in KINDS
]
FILES = ALL // (LINES * len(KINDS)) + 1


@st.composite
def mutation(draw) -> Callable[[bytes], bytes]:
    place, width = draw(st.floats(0, 1)), draw(st.integers(1, 30))
    junk = draw(
        st.one_of(
            st.sampled_from(JUNK),
            st.binary(max_size=8),
            st.text(max_size=4).map(lambda s: s.encode()),
        )
    )
    how = draw(
        st.sampled_from(["insert", "replace", "delete", "cut", "double", "instead", "typed"])
    )
    value = draw(
        st.sampled_from(
            [
                None,
                True,
                0,
                -1.5,
                [],
                {},
                [[]],
                [None],
                [""],
                [{"text": 1}],
                "",
                " ",
                "\0",
                "\ud800",
            ]
        )
    )

    def apply(entry: bytes) -> bytes:
        at = int(place * len(entry))
        head, middle, tail = entry[:at], entry[at : at + width], entry[at + width :]
        if how == "typed" and entry.startswith(b"{"):
            values = json.loads(entry)
            values[list(values)[at % len(values)]] = value
            return json.dumps(values).encode()
        made = {
            "insert": head + junk + middle + tail,
            "replace": head + junk + tail,
            "delete": head + tail,
            "cut": head,
        }
        return {**made, "double": head + middle + middle + tail, "instead": junk}.get(
            how, head + junk + tail
        )

    return apply


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_bad_lines_have_a_reason_and_good_lines_around_them_are_kept(kind, tmp_path):
    folder = tmp_path / "set"
    (folder / kind.file).parent.mkdir(parents=True)
    for name, content in kind.beside(2 * LINES + 1).items() if kind.beside else ():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    target = folder if kind.beside else folder / kind.file
    wanted = [check_example(kind.example(i)) for i in range(0, 2 * LINES + 1, 2)]
    seen = {"files": 0, "rejected": 0}

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=FILES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(mutation(), min_size=LINES, max_size=LINES))
    def go(mutations):
        entries = [kind.entry(i) for i in range(2 * LINES + 1)]
        for place, mutate in enumerate(mutations):
            entries[2 * place + 1] = mutate(entries[2 * place + 1])
        content = kind.join(entries)
        (folder / kind.file).write_bytes(content)
        instruction = "" if kind.name == "e5jax" else "T"
        options = Options(instruction, limits=Limits(line_bytes=8_000))
        found = list(read(target, kind.name, options))
        check(found, wanted, content.count(b"\n") + 1, folder)
        seen["files"] += 1
        seen["rejected"] += sum(isinstance(outcome, Rejected) for outcome in found)

    go()
    assert seen["files"] * LINES * len(KINDS) >= ALL
    assert seen["rejected"] > seen["files"] * LINES / 8  # mutations do harm


def check(found: list, wanted: list[Example], count: int, folder: Path) -> None:
    for outcome in found:
        if isinstance(outcome, Rejected):
            assert Path(outcome.file).is_relative_to(folder)
            assert 1 <= outcome.line <= count
            assert outcome.reason.strip()
        else:
            assert check_example(outcome) == outcome
    # A mutation may leave an example whole, and may turn it into another one; ids that count lines are not compared.
    asked = {example.query: example for example in wanted}
    same = [outcome for outcome in found if isinstance(outcome, Example) and outcome.query in asked]
    named = [
        example._replace(id="?") if asked[example.query].id == "?" else example for example in same
    ]
    assert [example for example in named if example == asked[example.query]] == wanted
