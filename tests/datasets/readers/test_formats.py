"""One file in each source's layout, and the examples that it holds, written out by hand."""

import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from e5jax.data.records import Example
from e5jax.datasets.readers.formats import FORMATS, detect, read
from e5jax.datasets.readers.result import Limits, Options, Rejected
from e5jax.errors import ConfigError

FILES = Path(__file__).parent / "files"
PREMISE = "Given a premise, retrieve a hypothesis that is entailed by the premise"
SIMILAR = "Retrieve semantically similar text"
HOPS = "Given a multi-hop question, retrieve documents that can help answer the question"
QUOTED = 'Year In 1901. { "question": ] }'

GOLDEN: dict[tuple[str, str], list[Example]] = {
    ("e5jax", "e5jax.jsonl"): [
        Example(
            "a",
            "how tall is the tower",
            ("The tower is 70 m tall.", "It measures 70 metres."),
            ("The tower is old.",),
            "Find the answer",
            "en",
            "towers",
            (0.9, 0.8),
            (0.1,),
        ),
        Example("e5jax:2", "Wie hoch ist der Turm?", ("70 m 😀",), (), "T", "de", "e5jax"),
    ],
    ("e5-mix", "allnli.jsonl"): [
        Example(
            "allnli:1",
            "A man sleeps.",
            ("A man is resting.",),
            ("A man runs.",),
            PREMISE,
            "de",
            "allnli",
        ),
        Example(
            "allnli:2",
            "Two dogs play.",
            ("Dogs are playing.", "Animals play."),
            ("Cats sleep.", "No dog plays."),
            SIMILAR,
            "de",
            "allnli",
        ),
        Example(
            "allnli:3",
            "A child reads.",
            ("Somebody reads.",),
            ("Nobody reads.",),
            PREMISE,
            "de",
            "allnli",
        ),
    ],
    ("pairs", "pairs.jsonl"): [
        Example("pairs:1", "what is rain", ("Water that falls.",), (), "T", "de", "pairs"),
        Example(
            "pairs:2", "what is snow", ("Frozen water.",), ("Sand.", "Salt."), "T", "de", "pairs"
        ),
    ],
    ("pairs", "triplets.csv"): [
        Example(
            "triplets:2",
            "what is rain",
            ("Water, that\n\nfalls.",),
            ("Sand",),
            "T",
            "de",
            "triplets",
        ),
        Example("triplets:5", 'a "quoted" word', ("Yes",), ("No",), "T", "de", "triplets"),
    ],
    ("pairs", "triplets.tsv"): [
        Example(
            "triplets:2",
            'what is "rain',
            ('Water "that" falls.',),
            ("Sand, dry",),
            "T",
            "de",
            "triplets",
        ),
    ],
    ("pairs", "arrays.jsonl"): [
        Example("arrays:1", "what is rain", ("Water that falls.",), (), "T", "de", "arrays"),
        Example("arrays:2", "what is snow", ("Frozen water.",), ("Sand.",), "T", "de", "arrays"),
    ],
    ("pairs", "lists.jsonl"): [
        Example(
            "lists:1",
            "what is rain",
            ("Water that falls.", "Drops."),
            ("Sand.",),
            "T",
            "de",
            "lists",
        ),
    ],
    ("tevatron", "tevatron.jsonl"): [
        Example(
            "12",
            "who built the tower",
            ("Tower Ada built it.",),
            ("It is tall.", "Bridge Bob built that."),
            "T",
            "de",
            "tevatron",
        ),
        Example("13", "when", ("Year In 1901.",), (), "T", "de", "tevatron"),
    ],
    ("beir", "beir"): [
        Example(
            "q1",
            "who built the tower",
            ("Tower Ada built it.",),
            ("It is tall.",),
            "T",
            "de",
            "beir",
        ),
        Example(
            "q2",
            "when was it built",
            ("Year In 1901.", "Tower Ada built it."),
            (),
            "T",
            "de",
            "beir",
        ),
    ],
    ("dpr", "dpr.json"): [
        Example(
            "dpr:1",
            "who built the tower",
            ("Tower Ada built it.", "Ada She built a tower."),
            ("Bridge Bob built that.",),
            "T",
            "de",
            "dpr",
        ),
        Example("dpr:2", "when was it built", (QUOTED,), ("Sea It is deep.",), "T", "de", "dpr"),
    ],
    ("msmarco", "msmarco/qrels.train.tsv"): [
        Example(
            "121352", "who built the tower", ("Ada built the tower.",), (), "T", "de", "msmarco"
        ),
        Example("634306", "when was it built", ("In 1901, they say.",), (), "T", "de", "msmarco"),
    ],
    ("msmarco", "msmarco/qidpidtriples.train.full.2.tsv"): [
        Example(
            "121352:1",
            "who built the tower",
            ("Ada built the tower.",),
            ("The sea is deep.",),
            "T",
            "de",
            "msmarco",
        ),
        Example(
            "634306:2",
            "when was it built",
            ("In 1901, they say.",),
            ("Ada built the tower.",),
            "T",
            "de",
            "msmarco",
        ),
    ],
    ("msmarco", "msmarco_document"): [
        Example(
            "3",
            "who built the tower",
            ("Tower Ada built the tower.",),
            (),
            "T",
            "de",
            "msmarco_document",
        ),
    ],
    ("msmarco", "t2ranking"): [
        Example("0", "塔有多高", ("塔高七十米。",), ("塔很旧。",), "T", "de", "t2ranking"),
        Example("3", "谁建了塔", ("艾达建了塔。",), ("塔高七十米。",), "T", "de", "t2ranking"),
    ],
    ("miracl", "miracl"): [
        Example(
            "1#0",
            "Kuka rakensi tornin?",
            ("Torni Ada rakensi sen.",),
            ("Meri Se on syvä.",),
            "T",
            "fi",
            "miracl",
        ),
        Example("2#0", "Mikä on jää?", ("Jää Jäätynyttä vettä.",), (), "T", "fi", "miracl"),
    ],
    ("hotpotqa", "hotpotqa.json"): [
        Example(
            "5a7a",
            "Which city is the builder of the tower from?",
            (
                "Tower Ada built it. It is tall.",
                'Ada She is a builder. She is from Åbo {"question": ].',
            ),
            ("Sea It is deep. It is wide.",),
            "T",
            "de",
            "hotpotqa",
        ),
        Example("5a7b", "What is ice?", ("Ice Frozen water.",), (), "T", "de", "hotpotqa"),
    ],
    ("fever", "fever"): [
        Example(
            "75397",
            "Ada built the tower.",
            ("Ada (builder) Ada ( born 1870 ) built towers .", "Tower The tower is tall ."),
            (),
            "T",
            "de",
            "fever",
        ),
        Example(
            "150448", "The sea is a café.", ("Café A café serves coffee .",), (), "T", "de", "fever"
        ),
    ],
    ("votes", "votes.jsonl"): [
        Example("1oy5tc", "why is rain wet?", ("Because it is water.",), (), "T", "de", "votes"),
        Example(
            "5lcjq6",
            "why is ice cold?",
            ("It has lost its heat.", "Heat has left it."),
            (),
            "T",
            "de",
            "votes",
        ),
    ],
    ("quora", "quora.tsv"): [
        Example(
            "quora:2",
            "How tall is the tower?",
            ("What is the height of the tower?",),
            ("How old is the tower?", 'Who is "Ada"?'),
            "T",
            "de",
            "quora",
        ),
        Example(
            "quora:5",
            'Who is "Ada"?',
            ("Ada:\nwho is that?",),
            ("How tall is the tower?",),
            "T",
            "de",
            "quora",
        ),
    ],
    ("rocketqa", "dual.train.tsv"): [
        Example(
            "dual:1",
            "塔有多高",
            ("塔高七十米。", "它有七十米高。"),
            ("塔很旧。", "海很深。"),
            "T",
            "de",
            "dual",
        ),
        Example("dual:4", "谁建了塔", ("艾达 她建了塔。",), ("鲍勃建了桥。",), "T", "de", "dual"),
    ],
    ("pairs", "simcse.csv"): [
        Example(
            "simcse:2",
            "A man sleeps.",
            ("A man is resting, quietly.",),
            ("A man runs.",),
            "T",
            "de",
            "simcse",
        ),
        Example(
            "simcse:3",
            "Two dogs play.",
            ("Animals play.",),
            ("No dog plays.",),
            "T",
            "de",
            "simcse",
        ),
        Example(
            "simcse:4",
            "A child reads.",
            ("Somebody reads.",),
            ("Nobody reads.",),
            "T",
            "de",
            "simcse",
        ),
    ],
}
# What gives no example: a question without answer, a claim without evidence, the nameless page of FEVER.
UNUSED: dict[str, list[str]] = {
    "dpr.json": ["dpr.json:69: positives: missing or empty"],
    "fever": [
        "fever/wiki-pages/wiki-001.jsonl:1: id: missing or empty",
        "fever/train.jsonl:3: no evidence: 'NOT ENOUGH INFO'",
    ],
    "votes.jsonl": ["votes.jsonl:3: positives: missing or empty"],
}
CASES = list(GOLDEN)
FOLDERS = ("msmarco", "fever", "miracl")  # of which a file alone is not enough
UNMARKED = [
    ("msmarco", "msmarco/qrels.train.tsv"),
    ("rocketqa", "dual.train.tsv"),
]  # two kinds of pairs; no header


def options(name: str, file: str = "", **changed) -> Options:
    """The mix knows its instructions; the others are given one. T2Ranking has grades."""
    given = {
        "instruction": "" if name == "e5-mix" else "T",
        "language": "de",
        "relevance": 2 if file == "t2ranking" else 1,
    }
    return Options(**{**given, **changed})


def good(outcomes) -> list[Example]:
    return [outcome for outcome in outcomes if isinstance(outcome, Example)]


def bad(outcomes) -> list[str]:
    return [str(outcome) for outcome in outcomes if isinstance(outcome, Rejected)]


@pytest.mark.parametrize(("name", "file"), CASES)
def test_each_layout_gives_the_examples_it_holds(name, file):
    found = list(read(FILES / file, name, options(name, file)))
    assert good(found) == GOLDEN[name, file]
    assert bad(found) == [f"{FILES}/{line}" for line in UNUSED.get(file, [])]


def test_every_format_is_shown():
    assert {name for name, _ in CASES} | {"parquet", "datasets"} == set(FORMATS)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(("name", "file"), CASES)
def test_compressed_files_give_the_same(name, file, suffix, tmp_path):
    squeeze = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    path = FILES / file
    folder = path if path.is_dir() else path.parent if name in FOLDERS else None
    for plain in [path] if folder is None else [p for p in folder.rglob("*") if p.is_file()]:
        copy = (
            tmp_path
            / (folder or plain).name
            / (plain.relative_to(folder) if folder else plain.name)
        )
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = plain.read_bytes()
        copy.with_name(copy.name + suffix).write_bytes(
            squeeze(content[:40]) + squeeze(content[40:])
        )
    root = tmp_path / (folder or path).name
    target = root if folder == path else root / (path.name + suffix)
    assert good(read(target, name, options(name, file))) == GOLDEN[name, file]


@pytest.mark.parametrize(("name", "file"), [case for case in CASES if case not in UNMARKED])
def test_the_format_is_told_from_the_content_where_there_is_no_doubt(name, file):
    target = FILES / file
    assert detect(target.parent if target.parent.name == "msmarco" else target) == name


@pytest.mark.parametrize(
    "text",
    ['{"query": "a", "positive": "b"}', "a,b\n", '{"text": "a"}', "not json", "", '[["a", "b"]]x'],
)
def test_a_format_in_doubt_is_asked_for(text, tmp_path):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(
        ConfigError,
        match=r"x\.jsonl: its format cannot be told from its content; name it, one of e5jax, e5-mix",
    ):
        detect(tmp_path / "x.jsonl")


def test_a_folder_is_read_file_by_file(tmp_path):
    for name in ("allnli.jsonl", "hotpot_qa.jsonl"):
        (tmp_path / name).write_bytes((FILES / name).read_bytes())
    found = good(read(tmp_path, "e5-mix"))
    assert [example.source for example in found] == ["allnli"] * 3 + ["hotpot_qa"]
    assert found[3].instruction == HOPS


@pytest.mark.parametrize(
    ("half", "instruction"), [("allnli_split1", PREMISE), ("allnli_split2", SIMILAR)]
)
def test_a_half_of_a_set_has_one_instruction(half, instruction, tmp_path):
    (tmp_path / f"{half}.jsonl").write_bytes((FILES / "allnli.jsonl").read_bytes())
    assert [
        e.instruction
        for e in good(read(tmp_path / f"{half}.jsonl", "e5-mix", Options(source="nli")))
    ] == [instruction] * 3


# --- Parquet and datasets ------------------------------------------------------------------------------------

ROWS = [
    {"anchor": "what is rain", "positive": "Water that falls.", "negative": ["Sand."], "extra": 1},
    {"anchor": None, "positive": "Lost.", "negative": [], "extra": 2},
    {"anchor": "what is snow", "positive": "Frozen water.", "negative": None, "extra": 3},
]
FROM_ROWS = [
    Example("rows:1", "what is rain", ("Water that falls.",), ("Sand.",), "T", "de", "rows"),
    Example("rows:3", "what is snow", ("Frozen water.",), (), "T", "de", "rows"),
]


def test_parquet_rows_over_several_row_groups(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet", row_group_size=1)
    assert detect(tmp_path / "rows.parquet") == "parquet"
    found = list(read(tmp_path / "rows.parquet", "parquet", options("parquet")))
    assert good(found) == FROM_ROWS
    assert bad(found) == [f"{tmp_path / 'rows.parquet'}:2: query: missing or empty"]


def test_parquet_columns_are_mapped_by_name(tmp_path):
    pq.write_table(pa.table({"title": ["q"], "body": ["p"]}), tmp_path / "x.parquet")
    (found,) = read(
        tmp_path / "x.parquet", "parquet", Options(columns={"query": "title", "positive": "body"})
    )
    assert found == Example("x:1", "q", ("p",), source="x")
    (missing,) = read(tmp_path / "x.parquet", "parquet")
    assert str(missing).endswith(
        "x.parquet:1: columns: no query and positive among title, body; say which they are"
    )
    (wrong,) = read(tmp_path / "x.parquet", "parquet", Options(columns={"query": "titel"}))
    assert str(wrong).endswith("columns: there is no titel among title, body")


def test_parquet_in_tevatron_s_layout(tmp_path):
    lines = [json.loads(line) for line in (FILES / "tevatron.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist(lines), tmp_path / "tevatron.parquet")
    assert (
        good(read(tmp_path / "tevatron.parquet", "parquet", options("parquet")))
        == GOLDEN["tevatron", "tevatron.jsonl"]
    )


def test_wrong_utf8_in_parquet_rejects_its_row(tmp_path):
    raw = pa.array([b"what", b"\xff", b"when"], pa.binary()).cast(pa.large_binary())
    broken = pa.Array.from_buffers(pa.large_string(), 3, raw.buffers())
    pq.write_table(pa.table({"query": broken, "positive": ["a", "b", "c"]}), tmp_path / "x.parquet")
    found = list(read(tmp_path / "x.parquet", "parquet"))
    assert [example.query for example in good(found)] == ["what", "when"]
    assert bad(found) == [
        f"{tmp_path / 'x.parquet'}:2: not UTF-8: query: invalid start byte at byte 0"
    ]


def test_damaged_parquet_keeps_the_row_groups_before(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"query": [f"q{i}" for i in range(900)], "positive": ["p"] * 900}),
        path,
        row_group_size=300,
    )
    with pq.ParquetFile(path) as opened:
        start = opened.metadata.row_group(2).column(0).dictionary_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    found = list(read(path, "parquet"))
    assert [e.query for e in good(found)] == [f"q{i}" for i in range(600)]
    assert bad(found)[0].startswith(f"{path}:601: Parquet data is damaged: ")
    path.write_bytes(b"PAR1 no more")
    (outcome,) = read(path, "parquet")
    assert str(outcome).startswith(f"{path}:1: Parquet data is damaged: ")


def test_a_saved_dataset_and_a_folder_of_files_are_read_through_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(str(tmp_path / "rows"))
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "splits/rows"))
    (tmp_path / "files/rows").mkdir(parents=True)
    made.to_parquet(str(tmp_path / "files/rows/train.parquet"))
    assert detect(tmp_path / "rows") == "datasets"
    for folder in (tmp_path / "rows", tmp_path / "splits/rows", tmp_path / "files/rows"):
        found = list(read(folder, "datasets", options("datasets")))
        assert good(found) == FROM_ROWS
        assert bad(found) == [f"{folder}:2: query: missing or empty"]


def test_a_split_that_is_not_there_is_refused(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(
        str(tmp_path / "rows")
    )
    with pytest.raises(ConfigError, match="datasets cannot open split 'dev'"):
        list(read(tmp_path / "rows", "datasets", Options(split="dev")))


# --- ids that do not fit together ----------------------------------------------------------------------------


@pytest.fixture
def beir(tmp_path) -> Path:
    for file in (FILES / "beir").rglob("*.*"):
        copy = tmp_path / "set" / file.relative_to(FILES / "beir")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return tmp_path / "set"


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line)


def test_ids_that_are_missing_or_come_twice_are_reported_and_the_rest_is_kept(beir):
    append(beir / "corpus.jsonl", '{"_id": "d1", "text": "again"}\n{"_id": "d9", "text": " "}\n')
    append(
        beir / "queries.jsonl",
        '{"_id": "q1", "text": "again"}\n{"_id": "q4", "text": "nothing good"}\n',
    )
    append(beir / "qrels/train.tsv", "q1\td7\t1\nq8\td1\t1\nq4\td2\t0\nq4\td2\tnan\nq4\td2\n")
    found = list(read(beir, "beir", options("beir", source="beir")))
    assert good(found) == GOLDEN["beir", "beir"]
    assert sorted(bad(found)) == sorted(
        f"{beir}/{reason}"
        for reason in (
            "corpus.jsonl:4: id occurs again: 'd1'; the first one counts",
            "corpus.jsonl:5: text: missing or empty",
            "queries.jsonl:4: id occurs again: 'q1'; the first one counts",
            "queries.jsonl:5: positives: missing or empty",
            "qrels/train.tsv:6: document is not there: 'd7'",
            "qrels/train.tsv:7: query is not there: 'q8'",
            "qrels/train.tsv:9: score is no number: 'nan'",
            "qrels/train.tsv:10: number of fields is wrong: 2, not query-id, corpus-id and score",
        )
    )


def test_the_split_is_the_one_that_was_asked_for(beir):
    assert [e.id for e in good(read(beir, "beir", Options(split="test")))] == ["q3"]
    with pytest.raises(ConfigError, match=r"no dev\.tsv; splits that are there: test, train"):
        read(beir, "beir", Options(split="dev"))


def test_two_files_of_pairs_are_not_chosen_between():
    with pytest.raises(
        ConfigError,
        match=r"has qidpidtriples\.train\.full\.2\.tsv, qrels\.train\.tsv; or give the path",
    ):
        read(FILES / "msmarco", "msmarco")


# --- what no line is to blame for ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "datasets"])
def test_a_missing_path_is_a_clear_error(name, tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path / "none")):
        list(read(tmp_path / "none", name))


def test_an_unknown_format_is_answered_with_the_known_ones():
    with pytest.raises(
        ConfigError, match="format 'csv': there is none; use one of e5jax, e5-mix, pairs"
    ):
        read(FILES, "csv")


def test_a_line_over_the_cap_is_rejected_and_the_next_is_read(tmp_path):
    lines = [
        Example("a", "q", ("p",)).to_json(),
        Example("b", "q" * 900, ("p",)).to_json(),
        Example("c", "q", ("p",)).to_json(),
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    found = list(read(tmp_path / "x.jsonl", "e5jax", Options(limits=Limits(line_bytes=400))))
    assert [example.id for example in good(found)] == ["a", "c"]
    assert bad(found) == [f"{tmp_path / 'x.jsonl'}:2: line too long: more than 400 bytes"]


def test_an_object_over_the_cap_is_rejected_and_the_next_is_read(tmp_path):
    def entry(size: int) -> dict:
        return {"question": f"q{size}", "positive_ctxs": [{"title": "", "text": "p" * size}]}

    path = tmp_path / "x.json"
    path.write_text(json.dumps([entry(1), entry(5 << 20), entry(2)]))
    found = list(read(path, "dpr", Options(limits=Limits(line_bytes=1 << 20))))
    assert [example.query for example in good(found)] == ["q1", "q2"]
    assert bad(found) == [f"{path}:1: object too long: more than 1,048,576 characters"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    (tmp_path / "x.tsv").write_bytes("\ufeffanchor\tpositive\r\nq\tp\r\n".encode())
    (found,) = read(tmp_path / "x.tsv", "pairs")
    assert found == Example("x:2", "q", ("p",), source="x")


def test_an_object_that_is_not_closed_does_not_swallow_the_next(tmp_path):
    kept = '{"question": "kept", "positive_ctxs": [{"title": "", "text": "p"}]}'
    lost = kept.replace("kept", "lost").removesuffix("]}")
    (tmp_path / "x.json").write_text(
        f'[{lost},\n{kept},\n{{"title": "", "text": "end of another"}}]}}\n]'
    )
    found = list(read(tmp_path / "x.json", "dpr"))
    assert [example.query for example in good(found)] == ["kept"]
    assert (
        bad(found)[0]
        == f"{tmp_path / 'x.json'}:1: object is not closed: the next one begins inside it"
    )
