import json
import random

import pytest

from e5jax.cli import main, parser
from e5jax.data.source import ExampleSource
from e5jax.datasets.clean import RULES, Rules, clean
from e5jax.datasets.contamination import evaluation_texts
from e5jax.errors import ConfigError
from tests.data.examples import changed, example, sentence

WORDS = sentence(random.Random(9), 2_000)
ENGLISH = "This morning I went to the market and bought bread and fruit for my children, number {}."


def text(seed, length=30):
    return " ".join(sentence(random.Random(seed), length))


def near(words, seed=0):
    return " ".join(changed(words.split(), random.Random(seed), WORDS))


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else line.to_json() for line in lines]
    path.write_text("".join(f"{one}\n" for one in texts), encoding="utf-8")
    return path


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def files(tmp_path):
    one = write(
        tmp_path / "one.jsonl",
        example("a", "what is jax", text(1), source="first"),
        "no json",
        example("b", "what is JAX?", text(1).upper(), source="first"),
        example("c", "where did I go this morning", ENGLISH.format(1), source="first"),
        example("d", text(50), text(2), source="first"),
    )
    two = write(
        tmp_path / "two.jsonl",
        example("e", "what is jax", near(text(1)), source="second"),
        example("f", "what is flax", text(3), source="second")._replace(language="fi"),
        example("g", text(50), text(2), source="second"),  # a copy of d, which is gone by then
    )
    return [one, two]


def test_copies_and_evaluation_texts_are_removed_across_files_and_said_why(files, tmp_path):
    made = clean(
        files,
        tmp_path / "out",
        [("nq/queries/1", text(50)), ("nq/queries/2", text(51)), ("no name", text(52))],
    )
    kept = [
        [row["id"] for row in read(tmp_path / "out/data" / name)]
        for name in ("one.jsonl", "two.jsonl")
    ]
    assert kept == [["a", "c"], ["f"]]
    removed = [
        (row["cause"], row["id"], row["part"], row["reason"], row["matched_id"])
        for row in read(tmp_path / "out/removed.jsonl")
    ]
    assert removed == [
        ("duplicate", "b", "positive", "equal", "a"),
        ("contamination", "d", "query", "equal", "nq/queries/1"),
        ("duplicate", "e", "positive", "near", "a"),
        ("contamination", "g", "query", "equal", "nq/queries/1"),
    ]
    assert (tmp_path / "out/data/one.rejects.txt").read_text().startswith(f"{files[0]}:2: not JSON")
    assert json.loads((tmp_path / "out/clean.json").read_text()) == json.loads(json.dumps(made))
    assert (made["examples"], made["kept"], made["evaluation_texts"]) == (7, 3, 3)
    assert made["evaluation"] == {"nq": {"texts": 2, "removed": 2}}
    assert made["rejected"] == {"not JSON": 1}
    assert made["removed"] == {
        "duplicate": {"equal": {"positive": 1}, "near": {"positive": 1}},
        "contamination": {"equal": {"query": 2}},
    }
    assert made["sources"]["first"] == {
        "examples": 4,
        "kept": 2,
        "languages": {"en": 2},
        "removed": {
            "duplicate": {"equal": {"positive": 1}},
            "contamination": {"equal": {"query": 1}},
        },
    }
    assert made["sources"]["second"]["languages"] == {"fi": 1}


def test_what_is_kept_is_unchanged_but_for_its_language_and_training_reads_it(files, tmp_path):
    clean(files, tmp_path / "out")
    source = ExampleSource([tmp_path / "out/data/*.jsonl"])
    assert [(source[i].id, source[i].language) for i in range(len(source))] == [
        ("a", "en"),
        ("c", "en"),
        ("d", ""),
        ("f", "fi"),
    ]
    before = [
        line
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if line[0] == "{"
    ]
    unchanged = {json.loads(line)["id"]: line for line in before}
    for i in range(len(source)):
        filled_in = source[i].id != "f"
        assert (
            unchanged[source[i].id]
            == (source[i]._replace(language="") if filled_in else source[i]).to_json()
        )


def test_a_record_without_source_and_id_gets_those_of_its_place(tmp_path):
    clean(
        [write(tmp_path / "mine.jsonl", "", '{"query": "q", "positives": ["p"]}')], tmp_path / "out"
    )
    (row,) = read(tmp_path / "out/data/mine.jsonl")
    assert (row["id"], row["source"], row["query"]) == ("mine:2", "mine", "q")


def test_cleaning_what_is_clean_changes_nothing(files, tmp_path):
    clean(files, tmp_path / "one")
    clean(sorted((tmp_path / "one/data").glob("*.jsonl")), tmp_path / "two")
    for name in ("one.jsonl", "two.jsonl"):
        assert (tmp_path / "one/data" / name).read_bytes() == (
            tmp_path / "two/data" / name
        ).read_bytes()
    assert (tmp_path / "two/removed.jsonl").read_text() == ""


def test_rules_change_what_is_removed(files, tmp_path):
    def removed(rules, evaluation=()):
        clean(files, tmp_path / "out", evaluation, rules)
        return [row["id"] for row in read(tmp_path / "out/removed.jsonl")]

    assert removed(RULES) == ["b", "e", "g"]
    assert removed(Rules(threshold=1.0)) == ["b", "g"]
    assert removed(Rules(keep_duplicates=True)) == []
    tested = [("q", text(50)), ("d", text(3))]
    assert removed(Rules(keep_duplicates=True), tested) == ["d", "f", "g"]
    assert removed(Rules(keep_duplicates=True, parts=("query",)), tested) == ["d", "g"]
    inside = [("x", f"{text(3)} {text(77, 8)}")]
    assert removed(Rules(keep_duplicates=True, threshold=1.0), inside) == ["f"]
    half = [
        ("x", f"{' '.join(text(3).split()[:17])} {text(77, 200)}")
    ]  # 10 of 23 runs of eight words
    assert removed(Rules(keep_duplicates=True), half) == []
    assert removed(Rules(keep_duplicates=True, share=0.4), half) == ["f"]


def test_only_what_cleaning_wrote_is_replaced(files, tmp_path):
    for name in ("mine/thesis.txt", "other/data/train.jsonl", "file"):
        write(tmp_path / name, "years of work")
        with pytest.raises(ConfigError, match="has not written"):
            clean(files, tmp_path / name.split("/", 1)[0])
        assert (tmp_path / name).read_text() == "years of work\n"
    (tmp_path / "out").mkdir()
    clean(files, tmp_path / "out")
    clean(files[:1], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/data").iterdir()) == [
        "one.jsonl",
        "one.rejects.txt",
    ]
    write(tmp_path / "out/thesis.txt", "years of work")
    with pytest.raises(ConfigError, match="has not written"):
        clean(files, tmp_path / "out")


def test_what_stops_leaves_the_old_folder_and_nothing_beside_it(files, tmp_path):
    clean(files, tmp_path / "out")
    before = (tmp_path / "out/clean.json").read_bytes()
    (tmp_path / "broken").mkdir()
    with pytest.raises(ConfigError, match=r"no queries\.jsonl"):
        clean(files[:1], tmp_path / "out", evaluation_texts([tmp_path / "broken"]))
    files[1].unlink()
    with pytest.raises(ConfigError, match=r"two\.jsonl"):
        clean(files, tmp_path / "out")
    assert (tmp_path / "out/clean.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "one.jsonl", "out"]


def test_two_files_of_one_name_are_refused(tmp_path):
    files = [write(tmp_path / folder / "x.jsonl", example("a", "q", "p")) for folder in "ab"]
    with pytest.raises(ConfigError, match=r"b/x\.jsonl: has the name of .*a/x\.jsonl"):
        clean(files, tmp_path / "out")


def test_the_command_line_cleans_and_says_what_it_removed(files, tmp_path, capsys):
    beir = tmp_path / "nq"
    write(beir / "queries.jsonl", json.dumps({"_id": "1", "text": text(50)}))
    write(beir / "corpus.jsonl", json.dumps({"_id": "1", "text": text(3)}))
    listed = write(
        tmp_path / "texts.jsonl",
        json.dumps({"id": "X/1", "kind": "document", "text": ENGLISH.format(1)}),
        json.dumps({"id": "X/2", "text": "nowhere"}),
    )
    words = [
        "data",
        "clean",
        "--input",
        *map(str, files),
        f"--output={tmp_path / 'out'}",
        f"--evaluation={beir}",
    ]
    assert main([*words, f"--evaluation={listed}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("7 examples: 1 kept; 1 lines rejected\n")
    assert "           4  contamination, equal\n" in out
    assert [
        row["matched_id"]
        for row in read(tmp_path / "out/removed.jsonl")
        if row["cause"] == "contamination"
    ] == [
        "X/1",
        "nq/queries/1",
        "nq/corpus/1",
        "nq/queries/1",
    ]
    assert main([*words, f"--evaluation={listed}", "--queries-only", "--keep-duplicates"]) == 0
    assert [row["id"] for row in read(tmp_path / "out/removed.jsonl")] == ["d", "g"]


def test_options_default_to_the_rules():
    args = parser().parse_args(["data", "clean", "--input=x", "--output=y"])
    assert (
        Rules(args.threshold, args.share, tuple(args.parts.split(",")), args.keep_duplicates)
        == RULES
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold=0"], "--threshold=0.0: must be above 0"),
        (["--threshold=nan"], "--threshold=nan: must be above 0"),
        (["--share=1.1"], "--share=1.1: must be above 0 and at most 1"),
        (["--parts=query,title"], "--parts=query,title: must be some of query, positive, negative"),
        (["--parts="], "--parts=: must be some of"),
        (["--evaluation=none"], "none: there is no such file or folder"),
        (["--input=none.jsonl"], "--input: 'none.jsonl' matches no file"),
        (["--config.seed=1"], "`e5jax data clean` takes no --config"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(words, said, files, tmp_path, capsys):
    assert (
        main(["data", "clean", f"--input={files[0]}", f"--output={tmp_path / 'out'}", *words]) == 3
    )
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line",
    ["{", "[]", {"id": "q"}, {"id": 1, "text": "a"}, {"_id": "1", "text": "a"}, '{"id": "\xff"'],
)
def test_a_bad_line_of_evaluation_texts_is_named(tmp_path, line):
    one = line if isinstance(line, str) else json.dumps(line)
    path = write(tmp_path / "x.jsonl", json.dumps({"id": "1", "text": "a"}), one)
    with pytest.raises(ConfigError, match=r"x\.jsonl:2: "):
        list(evaluation_texts([path]))
