"""Every set from a file in its publisher's layout and under its publisher's name, to the folder that training reads."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from e5jax.cli import main
from e5jax.config.load import load
from e5jax.data.batches import batch_builder, make_batches
from e5jax.data.records import Example
from e5jax.data.sampler import mixture_of, open_sets
from e5jax.data.source import ExampleSource
from e5jax.data.tokenizer import TextTokenizer, train_tokenizer
from e5jax.datasets.prepare import Order, language_of, prepare
from e5jax.datasets.public_sets import SETS, named
from e5jax.datasets.readers.result import Limits
from e5jax.errors import ConfigError
from tests.config.test_load import PAPER
from tests.datasets.readers.test_formats import FILES, GOLDEN, UNUSED

# Set -> the file of the readers' tests that has its layout, and what its publisher calls that file or folder.
LAYOUTS = {
    "eli5": ("votes", "votes.jsonl", "eli5-train-kilt.jsonl"),
    "hotpotqa": ("hotpotqa", "hotpotqa.json", "hotpot_train_v1.1.json"),
    "fever": ("fever", "fever", "fever"),
    "miracl": ("miracl", "miracl", "miracl"),
    "msmarco_passage": ("msmarco", "msmarco/qidpidtriples.train.full.2.tsv", "passage"),
    "msmarco_document": ("msmarco", "msmarco_document", "document"),
    "nq": ("dpr", "dpr.json", "biencoder-nq-train.json.gz"),
    "nli": ("pairs", "simcse.csv", "nli_for_simcse.csv"),
    "squad": ("dpr", "dpr.json", "biencoder-squad1-train.json.gz"),
    "triviaqa": ("dpr", "dpr.json", "biencoder-trivia-train.json.gz"),
    "quora": ("quora", "quora.tsv", "quora_duplicate_questions.tsv"),
    "mrtydi": ("tevatron", "tevatron.jsonl", "mrtydi-v1.1-finnish/train.jsonl.gz"),
    "dureader": ("rocketqa", "dual.train.tsv", "dual.train.tsv"),
    "t2ranking": ("msmarco", "t2ranking", "data"),
    "synthetic": ("e5jax", "e5jax.jsonl", "synthetic.jsonl"),
}
MULTILINGUAL = {"miracl": "fi", "mrtydi": "fi"}


def published(name: str, folder: Path) -> Path:
    """The files of a set as they are downloaded."""
    _, file, theirs = LAYOUTS[name]
    plain, copy = FILES / file, folder / theirs
    copy.parent.mkdir(parents=True, exist_ok=True)
    if name == "msmarco_passage":
        shutil.copytree(plain.parent, copy)
        (copy / "qrels.train.tsv").unlink()
    elif plain.is_dir():
        shutil.copytree(plain, copy)
    else:
        copy.write_bytes(
            gzip.compress(plain.read_bytes()) if copy.suffix == ".gz" else plain.read_bytes()
        )
    return copy


def wanted(name: str) -> list[Example]:
    """The hand-written examples of the layout, with what the set adds: instructions in turn, language, name."""
    chosen = named(name)
    return (
        [dressed(example, name, i) for i, example in enumerate(GOLDEN[LAYOUTS[name][:2]])]
        if chosen.instructions
        else own(name)
    )


def dressed(example: Example, name: str, i: int) -> Example:
    chosen = named(name)
    stem, colon, rest = example.id.partition(":")
    counted = colon and stem == example.source
    return example._replace(
        id=f"{name}:{rest}" if counted else example.id,
        instruction=chosen.instructions[i % len(chosen.instructions)],
        language=MULTILINGUAL.get(name) or chosen.languages[0],
        source=name,
    )


def own(name: str) -> list[Example]:
    """Records that bring everything themselves; their scores are float32."""
    first, second = GOLDEN[LAYOUTS[name][:2]]
    scores = {
        "positive_scores": (pytest.approx(0.9), pytest.approx(0.8)),
        "negative_scores": (pytest.approx(0.1),),
    }
    return [
        first._replace(**scores),
        second._replace(id=f"{name}:2", instruction="", language="", source=name),
    ]


def examples(folder: Path) -> Iterator[Example]:
    source = ExampleSource([folder])
    return (source[i] for i in range(len(source)))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """All sets, each prepared by the command line."""
    root = tmp_path_factory.mktemp("sets")
    for chosen in SETS:
        source = published(chosen.name, root / "files" / chosen.name)
        assert (
            main(
                [
                    "data",
                    "prepare",
                    chosen.name,
                    "--from",
                    str(source),
                    "--output",
                    str(root / "data"),
                ]
            )
            == 0
        )
    return root


@pytest.mark.parametrize("name", [chosen.name for chosen in SETS])
def test_each_set_holds_the_examples_of_its_publishers_files(name, built):
    folder = built / "data" / name / "1.0.0"
    assert list(examples(folder)) == wanted(name)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["examples"] == len(wanted(name))
    assert manifest["format"] == [LAYOUTS[name][0]]
    assert manifest["licence"] == named(name).licence
    unused = UNUSED.get(LAYOUTS[name][1], [])
    rejects = (folder / "rejects.txt").read_text().splitlines()
    assert [line.split(":", 1)[1] for line in rejects] == [line.split(":", 1)[1] for line in unused]
    assert sum(manifest["rejected"].values()) == len(unused)


def test_all_fourteen_sets_and_generated_examples_are_read_as_one_source(built):
    assert len(SETS) == len(LAYOUTS) == 15
    source = ExampleSource([built / "data" / chosen.name for chosen in SETS])
    assert [source[i] for i in range(len(source))] == [
        example for chosen in SETS for example in wanted(chosen.name)
    ]
    assert (
        ExampleSource([str(built / "data/*")]).fingerprint != source.fingerprint
    )  # in another order


def test_the_papers_mixture_says_what_it_takes_of_them_and_makes_batches(
    built, monkeypatch, capsys
):
    monkeypatch.chdir(built)
    overrides = [
        "--config.batch.queries=8",
        "--config.batch.shards=2",
        "--config.batch.chunks=2",
        "--config.optim.steps=101",
    ]
    assert main(["data", "shares", f"--config={PAPER}", *overrides, "--json"]) == 0
    found = {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert list(found) == [chosen.name for chosen in SETS]
    for chosen in SETS:
        row = found[chosen.name]
        assert row["examples"] == len(wanted(chosen.name))
        assert row["epoch"] == max(1, round(chosen.ratio * row["examples"]))
    epoch = sum(row["epoch"] for row in found.values())
    assert [row["run"] for row in found.values()] == [
        round(808 * row["epoch"] / epoch) for row in found.values()
    ]
    assert main(["data", "shares", f"--config={PAPER}", *overrides]) == 0
    assert f"an epoch is {epoch} examples" in capsys.readouterr().out

    run = load(PAPER, overrides)
    texts = [
        text
        for chosen in SETS
        for example in wanted(chosen.name)
        for text in (example.query, *example.positives)
    ]
    mixture = mixture_of(run)
    batches = make_batches(
        batch_builder(
            mixture,
            open_sets(mixture, run),
            TextTokenizer(train_tokenizer(texts, 500), 1, 2, 512),
            run,
        )
    )
    taken = [batches[step] for step in range(5)]
    assert sum(int((batch.queries >= 0).sum()) for batch in taken) == 40
    refused = [
        "data",
        "shares",
        f"--config={PAPER}",
        *overrides,
        "--config.data.mixture.datasets.nq.files=('data/no',)",
    ]
    assert main(refused) == 3
    assert "data.nq: " in capsys.readouterr().err


def test_tfds_opens_the_folder_by_itself(built):
    found = tfds.builder_from_directory(str(built / "data/quora/1.0.0")).as_data_source("train")
    assert len(found) == 2
    query, negatives = wanted("quora")[0].query, wanted("quora")[0].negatives
    assert found[0]["query"] == query.encode()
    assert list(found[0]["negatives"]) == [text.encode() for text in negatives]


def test_two_instructions_are_taken_in_turn_by_the_examples_that_are_kept(tmp_path):
    lines = ["sent0,sent1,hard_neg", "a,b,c", ",b,c", "d,e,f", "g,h,i"]  # the second has no query
    (tmp_path / "nli_for_simcse.csv").write_text("\n".join(lines))
    folder, counts = prepare(
        Order(named("nli"), [tmp_path / "nli_for_simcse.csv"]), tmp_path / "out"
    )
    premise, similar = named("nli").instructions
    assert [(e.query, e.instruction) for e in examples(folder)] == [
        ("a", premise),
        ("d", similar),
        ("g", premise),
    ]
    assert counts.rejected == {"query": 1}
    assert (folder / "rejects.txt").read_text() == "nli_for_simcse.csv:3: query: missing or empty\n"


@pytest.mark.parametrize("half", [1, 2])
def test_a_half_of_a_set_of_the_mix_keeps_its_instruction(half, tmp_path):
    shutil.copy(FILES / "allnli.jsonl", tmp_path / f"allnli_split{half}.jsonl")
    folder, _ = prepare(
        Order(named("nli"), [tmp_path / f"allnli_split{half}.jsonl"]), tmp_path / "out"
    )
    assert {example.instruction for example in examples(folder)} == {
        named("nli").instructions[half - 1]
    }


def test_a_set_of_the_mix_is_not_taken_for_another(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"hotpot_qa\.jsonl: is HotpotQA of the training mix, not NQ; prepare hotpotqa from it",
    ):
        prepare(Order(named("nq"), [FILES / "hotpot_qa.jsonl"]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_same_files_give_the_same_wherever_they_are(tmp_path):
    made = []
    for place in ("here", "there/deep"):
        source = published("miracl", tmp_path / place)
        folder, _ = prepare(Order(named("miracl"), [source]), tmp_path / place / "out")
        made.append(
            [(folder / name).read_bytes() for name in ("manifest.json", "rejects.txt")]
            + [ExampleSource([folder]).fingerprint]
        )
    assert made[0] == made[1]
    manifest = json.loads(made[0][0])
    assert "miracl/miracl-corpus-v1.0-fi/docs-0.jsonl" in manifest["sha256"]
    assert manifest["languages"] == {"fi": 2}


def test_pairs_of_ms_marco_are_recorded_with_the_texts_beside_them(tmp_path):
    file = published("msmarco_passage", tmp_path) / "qidpidtriples.train.full.2.tsv"
    folder, _ = prepare(Order(named("msmarco_passage"), [file], format="msmarco"), tmp_path / "out")
    names = list(json.loads((folder / "manifest.json").read_text())["sha256"])
    assert names == ["collection.tsv", "qidpidtriples.train.full.2.tsv", "queries.train.tsv"]


def test_the_language_is_that_of_the_set_or_of_the_files_name():
    assert language_of(named("nq"), Path("mrtydi-v1.1-thai/x.json")) == "en"
    assert language_of(named("mrtydi"), Path("mrtydi-v1.1-thai/train.jsonl.gz")) == "th"
    assert language_of(named("miracl"), Path("data/miracl-sw.jsonl")) == "sw"
    assert language_of(named("miracl"), Path("data/train.jsonl")) == ""


# --- what stops it -------------------------------------------------------------------------------------------


def test_a_checksum_that_was_given_is_compared(tmp_path):
    file = published("hotpotqa", tmp_path)
    good = json.loads(
        (prepare(Order(named("hotpotqa"), [file]), tmp_path / "a")[0] / "manifest.json").read_text()
    )["sha256"][file.name]
    assert (
        prepare(Order(named("hotpotqa"), [file], sha256={file.name: good}), tmp_path / "b")[
            1
        ].examples
        == 2
    )
    for sums, said in [
        ({file.name: "0" * 64}, rf"hotpot_train_v1\.1\.json: SHA-256 is {good}, not 0000"),
        (
            {"other.json": good},
            r"--sha256 other\.json: no such file was given; there are hotpot_train_v1\.1\.json",
        ),
        ({file.name: "12"}, "must be 64 hexadecimal digits"),
    ]:
        with pytest.raises(ConfigError, match=said):
            prepare(Order(named("hotpotqa"), [file], sha256=sums), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_what_stops_reading_leaves_what_was_there(tmp_path):
    file = tmp_path / "synthetic.jsonl.gz"
    lines = [Example(f"i{i}", "q" * 999, ("p",), (), "t").to_json() for i in range(1_200)]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    order = Order(named("synthetic"), [file])
    folder, counts = prepare(order, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert counts.examples == 1_200
    with pytest.raises(
        ConfigError,
        match=r"synthetic\.jsonl\.gz: .* more than ratio=2; if it is no bomb, raise ratio",
    ):
        prepare(order._replace(limits=Limits(ratio=2)), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]


def test_without_one_example_the_reasons_are_said(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"query": "q", "positives": []}\n' * 2)
    with pytest.raises(
        ConfigError, match=r"x\.jsonl: not one example; 0 examples, 2 rejected\n +2  positives"
    ):
        prepare(Order(named("nq"), [tmp_path / "x.jsonl"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nq"], 2, "NAME, --from and --output are needed; or --list"),
        (["nqq", "--from=x", "--output=y"], 3, "set 'nqq': there is none; use one of eli5"),
        (["nq", "--from=none.json", "--output=y"], 3, "none.json: no such file or folder"),
        (
            ["nq", "--from=none.json", "--output=y", "--format=dprr"],
            3,
            "format 'dprr': there is none; use one of",
        ),
        (
            ["nq", "--from=none.json", "--output=y", "--config.seed=1"],
            3,
            "`e5jax data prepare` takes no --config",
        ),
        (
            ["fever", "--from=hub", "--output=y"],
            3,
            "fever: is not on the hub as its publisher wrote it; download https://fever.ai",
        ),
        (
            ["nq", "--from=hub", "--output=y"],
            3,
            "Tevatron/wikipedia-nq: not to be had from the hub",
        ),
    ],
)
def test_wrong_words_are_refused_with_their_exit_code(
    words, code, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    try:
        found = main(["data", "prepare", *words])
    except SystemExit as stopped:
        found = stopped.code
    assert found == code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_list_says_what_is_known_of_each_set(capsys):
    assert main(["data", "prepare", "--list"]) == 0
    out = capsys.readouterr().out
    for chosen in SETS:
        assert f"{chosen.name}: {chosen.title}\n  ratio        {chosen.ratio:g}\n" in out
        assert all(f"  instruction  {text}\n" in out for text in chosen.instructions)
        assert f"  licence      {chosen.licence}\n" in out


# --- the hub -------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """The hub's cache, with small files in the places of those of MIRACL, Mr. TyDi and T2Ranking."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    miracl = [
        path.relative_to(FILES / "miracl")
        for path in (FILES / "miracl").rglob("*")
        if path.is_file()
    ]
    files = {f"THUIR/T2Ranking/data/{path.name}": path for path in (FILES / "t2ranking").iterdir()}
    files |= {
        f"miracl/{'miracl-corpus' if 'corpus' in str(path) else 'miracl'}/{path}": FILES
        / "miracl"
        / path
        for path in miracl
    }
    files |= {
        f"castorini/mr-tydi/mrtydi-v1.1-{name}/train.jsonl": FILES / "tevatron.jsonl"
        for name in ("thai", "arabic", "combined")
    }
    for name, source in files.items():
        owner, repository, inner = name.split("/", 2)
        snapshot = cache / f"datasets--{owner}--{repository}/snapshots/{'c0ffee' * 6}abcd"
        (snapshot.parent.parent / "refs").mkdir(parents=True, exist_ok=True)
        (snapshot.parent.parent / "refs/main").write_text(snapshot.name)
        compressed = inner.endswith(".jsonl")
        copy = snapshot / f"{inner}{'.gz' if compressed else ''}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(gzip.compress(source.read_bytes()) if compressed else source.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["miracl", "t2ranking"])
def test_files_of_the_hub_are_read_where_they_lie(name, hub):
    assert main(["data", "prepare", name, "--from", "hub", "--output", str(hub / "out")]) == 0
    assert list(examples(hub / "out" / name)) == wanted(name)
    manifest = json.loads((hub / "out" / name / "1.0.0/manifest.json").read_text())
    repositories = dict.fromkeys(repository for repository, _ in named(name).hub)
    assert manifest["revisions"] == [
        f"{repository}@{'c0ffee' * 6}abcd" for repository in repositories
    ]


def test_each_language_of_the_hub_is_a_file_of_its_own(hub):
    assert main(["data", "prepare", "mrtydi", "--from", "hub", "--output", str(hub / "out")]) == 0
    assert [example.language for example in examples(hub / "out/mrtydi")] == [
        "ar",
        "ar",
        "th",
        "th",
    ]
    names = list(json.loads((hub / "out/mrtydi/1.0.0/manifest.json").read_text())["sha256"])
    assert names == [f"mrtydi-v1.1-{language}/train.jsonl.gz" for language in ("arabic", "thai")]
