import pytest

from e5jax.cli import main
from e5jax.data.source import ExampleSource, Needs
from e5jax.datasets.problems import Wanted, report_problems
from e5jax.errors import ConfigError
from tests.config.test_load import config_file
from tests.data.examples import example

GOOD = example("a", "query", "positive").to_json()
BAD = [
    "no json",
    '{"query": "q"}',
    '{"query": "q", "positives": ["p"], "x": 1}',
    "\ufeff" + GOOD,
    GOOD[:-1],
]


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def problems(*wanted):
    said = []
    return said, report_problems(wanted, said.append)


def test_every_problem_is_listed_with_file_and_line(tmp_path):
    one = write(tmp_path / "one.jsonl", *BAD, GOOD)
    two = write(tmp_path / "two.jsonl", GOOD, *BAD)
    said, counts = problems(Wanted([one, two], Needs()))
    places = [f"{one}:{i}: " for i in range(1, 6)] + [f"{two}:{i}: " for i in range(2, 7)]
    assert [line.startswith(place) for line, place in zip(said, places, strict=True)] == [True] * 10
    assert counts.examples == 2
    assert counts.rejected == {"not JSON": 6, "positives": 2, "unknown fields": 2}


@pytest.mark.parametrize("line", [*BAD, GOOD, "\xa0", "", " \t"])
@pytest.mark.parametrize("negatives", [0, 1])
def test_what_is_a_problem_is_what_training_refuses(tmp_path, line, negatives):
    path = write(tmp_path / "x.jsonl", example("b", "q", "p", ("n",)).to_json(), line)
    said, counts = problems(Wanted([path], Needs(negatives)))
    assert counts.examples + counts.rejected.total() == (2 if line.strip(" \t") else 1)
    try:
        assert len(ExampleSource([path], Needs(negatives=negatives))) == counts.examples
    except ConfigError:
        assert len(said) == 1
    else:
        assert said == []


def test_a_problem_is_one_printable_line(tmp_path):
    said, _ = problems(
        Wanted(
            [
                write(
                    tmp_path / "x.jsonl",
                    '{"query": "q", "positives": ["p"], "\\u001b[2J\\u202e": 1}',
                )
            ],
            Needs(),
        )
    )
    assert len(said) == 1
    assert said[0].isprintable()
    assert "\\x1b[2J\\u202e" in said[0]


def test_the_command_lists_all_and_exits_3(tmp_path, capsys):
    write(tmp_path / "a.jsonl", *["no json"] * 20, GOOD)
    write(tmp_path / "b.jsonl", GOOD, "[]")
    assert main(["data", "validate", "--input", f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[:20] == [
        f"{tmp_path}/a.jsonl:{i}: not JSON: Expecting value: line 1 column 1 (char 0)"
        for i in range(1, 21)
    ]
    assert lines[20:] == [
        f"{tmp_path}/b.jsonl:2: not a JSON object",
        "2 examples, 21 rejected",
        "          20  not JSON",
        "           1  not a JSON object",
    ]


def test_good_files_exit_0_whether_named_or_matched(tmp_path, capsys):
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.jsonl", GOOD)
    assert main(["data", "validate", f"--input={tmp_path}/*.jsonl"]) == 0
    assert (
        main(["data", "validate", f"--input={tmp_path}/a.jsonl", f"--input={tmp_path}/b.jsonl"])
        == 0
    )
    assert capsys.readouterr().out == "3 examples, 0 rejected\n2 examples, 0 rejected\n"


def test_files_without_a_line_are_a_problem(tmp_path, capsys):
    write(tmp_path / "a.jsonl")
    assert main(["data", "validate", f"--input={tmp_path}/a.jsonl"]) == 3
    assert f"{tmp_path}/a.jsonl:1: no examples" in capsys.readouterr().out


CONFIG = """
from e5jax.config import Batch, Config, Data, Harvest, Model, Scratch, Training

def get_config():
    return Config(
        data=Data(files=("{main}",)),
        batch=Batch(queries=1, negatives=1),
        stages=("pretrain", "train"),
        pretrain=Training(data=Data({first}), model=Model(scratch=Scratch()), batch=Batch(negatives=0)),
    )
"""


def test_a_configuration_says_files_and_negatives_of_each_of_its_runs(tmp_path, capsys):
    write(tmp_path / "main.jsonl", example("b", "q", "p", ("n",)).to_json(), GOOD)
    write(tmp_path / "first.jsonl", GOOD, "[]")
    path = config_file(
        tmp_path,
        CONFIG.format(main=tmp_path / "main.jsonl", first=f"files=('{tmp_path / 'first.jsonl'}',)"),
    )
    assert main(["data", "validate", f"--config={path}"]) == 3
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"{tmp_path}/main.jsonl:2: no negatives, and its query is compared with no others; give it hard negatives, "
        "or in-batch negatives",
        f"{tmp_path}/first.jsonl:2: not a JSON object",
        "2 examples, 2 rejected",
    ]
    assert main(["data", "validate", f"--config={path}", "--config.batch.queries=2"]) == 3
    assert "main.jsonl" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "one of the arguments --config --input is required"),
        (["--input=x", "--config=y"], 2, "not allowed with"),
        (["--input=none.jsonl"], 3, "--input: 'none.jsonl' matches no file"),
        (
            ["--input=none.jsonl", "--config.seed=1"],
            3,
            "--config.seed=1: `e5jax data validate --input` takes no --config",
        ),
        (
            ["--config=configs/e5_mistral_7b.py", "--negatives=1"],
            3,
            "--negatives=1: the configuration says",
        ),
        (["--config=configs/quickstart.py"], 3, "config.data.harvest makes the data"),
        (
            ["--config=configs/e5_mistral_7b.py", "--config.data.files=('none/*',)"],
            3,
            "config.data.files: 'none/*' matches no file",
        ),
    ],
)
def test_wrong_words_are_refused_with_their_exit_code(words, code, said, capsys):
    try:
        found = main(["data", "validate", *words])
    except SystemExit as stopped:
        found = stopped.code
    assert found == code
    assert said in capsys.readouterr().err
