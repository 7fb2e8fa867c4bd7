import json
import re

import pytest

from e5jax.data.source import ExampleSource
from e5jax.data.tokenizer import TextTokenizer, train_tokenizer
from e5jax.errors import CONFIG, ConfigError
from examples import passkey
from examples.passkey import PARTS, Plan, main, names, question, write_passkey

PLAN = Plan((64, 1_024), queries=5, documents=9, examples=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("made") / "passkey"
    write_passkey(PLAN, None, made)
    return made


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("length", PLAN.lengths)
def test_documents_fill_their_length_and_never_pass_it(folder, length):
    tokenizer = TextTokenizer.from_file(folder / "tokenizer.json", 1, 2, 2_000)
    counts = tokenizer.count(
        [row["text"] for row in read(folder / f"passkey-{length}" / "corpus.jsonl")]
    )
    assert max(counts) <= length
    assert min(counts) > length - 10  # the longest sentence of the filler has 6 pieces


@pytest.mark.parametrize("length", PLAN.lengths)
def test_each_query_asks_for_the_one_person_of_its_document(folder, length):
    place = folder / f"passkey-{length}"
    corpus, queries = (
        {row["_id"]: row["text"] for row in read(place / f"{name}.jsonl")}
        for name in ("corpus", "queries")
    )
    pairs = [
        line.split("\t")[:2] for line in (place / "qrels/test.tsv").read_text().splitlines()[1:]
    ]
    assert (len(corpus), len(queries), len(pairs)) == (9, 5, 5)
    for query, document in pairs:
        name = re.fullmatch(r"what is the pass key for (\w+ \w+)\?", queries[query])[1]
        (key,) = re.findall(
            rf"{name}'s pass key is (\d{{5}})\. Remember it\. \d{{5}} is the pass key for {name}\.",
            corpus[document],
        )
        assert corpus[document].count(key) == 2
        assert [one for one in corpus if name in corpus[one]] == [document]


def test_needles_are_anywhere_and_keys_are_of_one_document(folder):
    texts = [row["text"] for row in read(folder / "passkey-1024" / "corpus.jsonl")]
    places = [text.index("Remember it") / len(text) for text in texts]
    assert min(places) < 0.3
    assert max(places) > 0.7
    assert len({re.search(r"\d{5}", text)[0] for text in texts}) == len(texts)


def test_names_of_training_are_not_those_of_the_task_and_training_reads_them(folder):
    source = ExampleSource([folder / "passkey-64" / "train.jsonl"])
    trained = {source[i].query for i in range(len(source))}
    assert len(source) == 20
    assert len(trained) > 15
    assert not trained & {
        f"what is the pass key for {name}?" for name in names(0)[: PLAN.documents]
    }
    assert not (folder / "passkey-1024" / "train.jsonl").exists()


def test_the_seed_decides_every_byte(folder, tmp_path):
    write_passkey(PLAN, None, tmp_path / "again")
    write_passkey(PLAN._replace(seed=1), None, tmp_path / "other")
    for path in (
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("task.json", "test.tsv")
    ):
        relative = path.relative_to(folder)
        assert (tmp_path / "again" / relative).read_bytes() == path.read_bytes()
        assert (tmp_path / "other" / relative).read_bytes() != path.read_bytes()
    assert len(set(names(0))) == PARTS**2


def test_no_length_is_ever_passed_by_a_token(tmp_path):
    """Not even where the first sentence of the filler is many pieces and the others are few."""
    tokenizer = tmp_path / "tokenizer.json"
    train_tokenizer(passkey.FILLER[1:] * 9, 320).save(str(tokenizer))
    plan = Plan(range(120, 140), queries=1, documents=2)
    write_passkey(plan, tokenizer, tmp_path / "out")
    counter = TextTokenizer.from_file(tokenizer, 1, 2, 2_000)
    for length in plan.lengths:
        texts = [
            row["text"] for row in read(tmp_path / "out" / f"passkey-{length}" / "corpus.jsonl")
        ]
        assert max(counter.count(texts)) <= length


def test_names_of_training_are_never_those_of_the_task(monkeypatch, tmp_path):
    monkeypatch.setattr(passkey, "PARTS", 3)
    write_passkey(Plan((64,), queries=1, documents=8, examples=9), None, tmp_path / "out")
    trained = {row["query"] for row in read(tmp_path / "out" / "passkey-64" / "train.jsonl")}
    assert trained == {question(names(0)[8])}, "the ninth of nine names"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lengths": (32,)}, "--lengths=32: must be different numbers of tokens, each at least 64"),
        ({"lengths": (64, 64)}, "--lengths=64,64"),
        ({"queries": 10}, "--queries=10 and --documents=9"),
        ({"documents": 10_000}, "--documents=10000"),
        ({"examples": -1}, "--examples=-1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        write_passkey(PLAN._replace(**changed), None, tmp_path / "out")


def test_the_command_counts_with_the_tokenizer_that_it_is_given(folder, tmp_path, capsys):
    words = [
        f"--tokenizer={folder}",
        f"--output={tmp_path / 'out'}",
        "--documents=2",
        "--queries=1",
    ]
    assert main([*words, "--lengths=64"]) == 0
    assert capsys.readouterr().out == f"task: {tmp_path / 'out' / 'passkey-64'}\n"
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (
        folder / "tokenizer.json"
    ).read_bytes()
    assert main([*words, "--lengths=64,x"]) == CONFIG


def test_a_length_that_no_pass_key_fits_into_is_refused(tmp_path):
    letters = tmp_path / "tokenizer.json"
    train_tokenizer(["a"], 300).save(str(letters))  # a token per byte
    with pytest.raises(
        ConfigError, match=r"--lengths: 64 is too short: a pass key alone has [0-9]+ tokens"
    ):
        write_passkey(PLAN, letters, tmp_path / "out")
    assert not (tmp_path / "out").exists()
