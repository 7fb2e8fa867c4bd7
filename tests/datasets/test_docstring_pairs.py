import ast
import hashlib
import json
import os
import re
import signal
from pathlib import Path

import pytest

from e5jax.config import Harvest
from e5jax.data.source import ExampleSource, Needs
from e5jax.datasets.docstring_pairs import find_packages, harvest_roots, installed_roots
from e5jax.datasets.functions import first_paragraph, read_source, reject_query
from e5jax.errors import ConfigError, RunError

VERBS = ["Open", "Close", "Count", "Merge", "Sort", "Draw", "Parse", "Store", "Fetch", "Trim"]
SPEC = Harvest(
    train_pairs=60,
    heldout_pairs=12,
    heldout_pairs_per_package=4,
    train_pairs_per_package=20,
    task="the task",
)
SKIPPED = ["tests/it.py", "_vendor/else.py", "made_pb2.py", "conftest.py", "sub/test_it.py"]


def function(package: str, number: int, indent: str = "") -> str:
    verb, word = VERBS[number % 10], VERBS[number // 10 % 10].lower()
    lines = [
        f"def {verb.lower()}_{word}_{number}(first, second):",
        f'    """{verb} the {word} of {package} kind {"very " * (number // 10)}well.',
        "",
        "    Hidden details.",
        '    """',
        f"    # why {number}",
        f"    result = {package}(first, {number})",
        "    second.append(result)",
        "    return second",
    ]
    return "".join(f"{indent}{line}\n" for line in lines)


def module(package: str, numbers) -> str:
    return "import nothing_that_exists\n" + "\n\n".join(
        function(package, number) for number in numbers
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("site-packages")
    files = {
        **{f"huge/part{i}.py": module("huge", range(i * 25, i * 25 + 25)) for i in range(6)},
        **{
            f"{name}/__init__.py": module(name, range(6))
            for name in ("amber", "birch", "cedar", "delta", "elm")
        },
        "_delta.py": module("_delta", range(3)),
        "fern.py": module("amber", range(6)),  # a copy of another package
        "lone.py": module("lone", [0]),
        **{
            f"amber/{skipped}": module("unwanted", range(i * 5, i * 5 + 5))
            for i, skipped in enumerate(SKIPPED)
        },
        "amber/broken.py": module("unwanted", range(5)) + "def (:\n",
        "amber/long.py": module("unwanted", range(5)) + "# long\n" * 50_000,
        "e5jax/ours.py": module("unwanted", range(5)),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "dangling.py").symlink_to(
        root / "nowhere.py"
    )  # Debian's sitecustomize.py, where /etc was left out of an image
    return root


@pytest.fixture(scope="module")
def output(root, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("harvest") / "out"
    harvest_roots(SPEC, output, [root])
    return output


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def package_of(identity: str) -> str:
    return re.split("[:/.]", identity, maxsplit=1)[0].strip("_")


def test_no_package_is_in_both_halves(output):
    train = {package_of(line["id"]) for line in lines(output / "train.jsonl")}
    heldout = {package_of(line["_id"]) for line in lines(output / "heldout/corpus.jsonl")}
    assert train
    assert heldout
    assert train.isdisjoint(heldout)


def test_no_query_and_no_code_occurs_twice(output):
    train, heldout = lines(output / "train.jsonl"), output / "heldout"
    queries = [line["query"] for line in train] + [
        line["text"] for line in lines(heldout / "queries.jsonl")
    ]
    codes = [line["positives"][0] for line in train] + [
        line["text"] for line in lines(heldout / "corpus.jsonl")
    ]
    assert len(set(queries)) == len(queries) == len(codes) == len(set(codes))


def test_hard_negative_is_another_function_of_the_same_package(output):
    train = lines(output / "train.jsonl")
    for line in train:
        (negative,) = line["negatives"]
        assert negative != line["positives"][0]
        assert f"{line['source']}(" in negative
    of_file = {line["positives"][0]: line["id"].split(":")[0] for line in train}
    same = [of_file.get(line["negatives"][0]) == of_file[line["positives"][0]] for line in train]
    assert all(same)


def test_caps_hold_and_are_filled_from_many_files(output):
    train = lines(output / "train.jsonl")
    huge = [line["id"].split(":")[0] for line in train if line["source"] == "huge"]
    heldout = [package_of(line["_id"]) for line in lines(output / "heldout/corpus.jsonl")]
    assert len(huge) == 20
    assert max(map(huge.count, huge)) <= 8
    assert len(set(huge)) >= 3
    assert len(heldout) == 12
    assert max(map(heldout.count, heldout)) == 4


def test_tests_vendored_generated_and_own_files_are_left_out(output):
    assert (
        "unwanted"
        not in (output / "train.jsonl").read_text() + (output / "heldout/corpus.jsonl").read_text()
    )


@pytest.mark.parametrize("name", SKIPPED)
def test_each_kind_of_unwanted_file_is_skipped(root, name):
    assert (root / "amber" / name).is_file()
    assert [found for _, found in find_packages([root])["amber"] if found == f"amber/{name}"] == []


def test_train_file_is_a_source_of_examples(output):
    source = ExampleSource([output / "train.jsonl"], Needs(negatives=1))
    assert {source[i].instruction for i in range(len(source))} == {"the task"}


def test_every_heldout_query_has_its_function_as_answer(output):
    heldout = output / "heldout"
    corpus = {line["_id"]: line["text"] for line in lines(heldout / "corpus.jsonl")}
    queries = {line["_id"]: line["text"] for line in lines(heldout / "queries.jsonl")}
    header, *rows = [
        line.split("\t") for line in (heldout / "qrels/test.tsv").read_text().splitlines()
    ]
    assert header == ["query-id", "corpus-id", "score"]
    assert {query: answer for query, answer, _ in rows} == {
        identity: identity for identity in corpus
    }
    assert corpus.keys() == queries.keys()
    assert all(
        queries[identity].split()[0].lower() == identity.split(":")[1].split("_")[0]
        for identity in corpus
    )
    assert json.loads((heldout / "task.json").read_text()) == {"instruction": "the task"}


def test_same_packages_give_the_same_bytes_in_any_order_of_the_folder(
    root, output, tmp_path, monkeypatch
):
    walk = os.walk

    def backwards(top):
        for folder, folders, names in walk(top):
            folders.sort(reverse=True)
            yield folder, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    summary = harvest_roots(SPEC, tmp_path, [root])
    names = [
        "train.jsonl",
        "summary.json",
        *(f"heldout/{n}" for n in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv", "task.json")),
    ]
    digests = [
        [hashlib.sha256((folder / name).read_bytes()).digest() for name in names]
        for folder in (output, tmp_path)
    ]
    assert digests[0] == digests[1]
    assert summary == json.loads((output / "summary.json").read_text())
    assert summary["rejected"]["file too long"] == summary["rejected"]["file does not parse"] == 1


def killed(*_: object) -> None:
    """Instead of reading a package."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_while_it_reads_is_one_error(root, tmp_path, monkeypatch):
    monkeypatch.setattr("e5jax.datasets.docstring_pairs.read_package", killed)
    with pytest.raises(RunError, match="a process that reads packages has died"):
        harvest_roots(SPEC, tmp_path / "data", [root])


def test_too_few_pairs_name_both_numbers(root, tmp_path):
    with pytest.raises(ConfigError, match=r"heldout_pairs=500.* only \d+ pairs"):
        harvest_roots(
            Harvest(heldout_pairs=500, heldout_pairs_per_package=4, train_pairs_per_package=5),
            tmp_path,
            [root],
        )


def test_private_sibling_belongs_to_its_package(root):
    packages = find_packages([root])
    assert sorted(name for _, name in packages["delta"]) == ["_delta.py", "delta/__init__.py"]
    assert not {"e5jax", "dangling"} & packages.keys()


def test_installed_roots_hold_the_standard_library():
    assert any((root / "json/decoder.py").is_file() for root in installed_roots())
    assert not any(
        name.startswith("site-packages")
        for files in find_packages(installed_roots()[:1]).values()
        for _, name in files
    )


SOURCE = '''
class Box:
    if True:
        @property
        # kept
        async def size(self, a: int = 3):
            r"""Measure the size of this :class:`~pkg.Box` carefully.
            It goes on here.

            Returns:
                secret
            """

            # a comment
            text = """
        inner
            """

            if a:
                return text
            return None
'''


def test_code_is_the_function_without_its_docstring():
    (found,), rejected = read_source(SOURCE, "box.py")
    assert not rejected
    assert found.id == "box.py:size:6"
    assert found.query == "Measure the size of this Box carefully. It goes on here."
    assert found.code.startswith(
        "@property\n# kept\nasync def size(self, a: int = 3):\n    # a comment\n    text ="
    )
    assert found.code.endswith("\n\n    if a:\n        return text\n    return None")
    assert ast.get_docstring(ast.parse(found.code).body[0]) is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    x = 1\n    return x", "code too short"),
        ("    x = 1\n" * 120, "code too long"),
        ("    x = 1\n    y = 2\n    return x", None),
    ],
)
def test_functions_of_unfit_length_are_rejected(body, reason):
    functions, rejected = read_source(
        f'def f():\n    """Say what this function does."""\n{body}\n', "f.py"
    )
    assert list(rejected) == ([reason] if reason else [])
    assert len(functions) == (reason is None)


def test_docstring_on_a_line_with_code_is_rejected():
    text = 'def f(): "Say what this function does."; x = 1; y = 2; return x\nif 1:\n    "for the look of it"\n'
    assert read_source(text, "f.py")[1] == {"docstring shares a line with code": 1}


@pytest.mark.parametrize(
    "query",
    [
        "Too short here",
        "word " * 61,
        "foo(a, b, c) -> return the thing",
        "TODO write what this does",
        "Deprecated, use the other one instead",
        "See https://example.org for the details of this",
        "See the base class for what this does",
        "Überprüft größere Mächtigkeiten übergroßer Häuser möglichst schön",
        "计算 两个 向量 的 余弦 相似 度",
        "x_1 + y_2 * z_3 == a_4 / b_5",
        "Returns one of the following values:",
    ],
)
def test_what_is_no_description_is_rejected(query):
    assert reject_query(query) is not None


@pytest.mark.parametrize(
    "query",
    [
        "Return the mean of `values`, ignoring NaNs.",
        "Is this logger enabled for level 'level'?",
        "Check that a file exists",
    ],
)
def test_descriptions_are_accepted(query):
    assert reject_query(query) is None


@pytest.mark.parametrize(
    "end",
    [
        "\n\nMore.",
        "\n:param x: more",
        "\nArgs:\n  x: more",
        "\n>>> more()",
        "\nNotes\n-----",
        "\n- more",
    ],
)
def test_first_paragraph_ends_at_the_first_section(end):
    assert first_paragraph(f"  Do the\n   thing well.{end}").startswith("Do the thing well.")
    assert "ore" not in first_paragraph(f"Do the\n   thing well.{end}")
