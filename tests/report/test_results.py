import json

import pytest

from e5jax.errors import ConfigError
from e5jax.report.results import (
    Difference,
    Results,
    Task,
    Vectors,
    read_results,
    write_results,
)

RESULTS = Results(
    model="ours",
    tasks={"SciFact": Task("Retrieval", ("test",), ("default",), ("a note",), 1.5, "abc", "clean")},
    scores={
        "ours": {"SciFact": {"main_score": 0.5, "recall_at_10": 0.75}},
        "theirs": {"SciFact": {"main_score": 0.25}},
    },
    differences={"SciFact": {"theirs": Difference(300, 0.25, 0.2, 0.3, 0.0002)}},
    vectors={"ours": Vectors(64, "int8", 64, 1234.5)},
    settings={"preset": "paper", "instruction": None},
    notes=("a remark",),
    price=2.5,
)


def test_what_is_written_is_read_again(tmp_path):
    write_results(tmp_path / "results.json", RESULTS)
    assert read_results(tmp_path / "results.json") == RESULTS


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], None, "schema=None, and this version reads 1; delete the file and run"),
        (["schema"], 2, "schema=2, and this version reads 1"),
        (["tasks"], [], "damaged .*'list'"),
        (["tasks", "SciFact", "splits"], "test", "damaged .*must be lists"),
        (["tasks", "SciFact", "more"], "x", "damaged .*'more'"),
        (["scores", "ours", "other"], {"main_score": 1.0}, "lacks .* the description of a task"),
        (["scores", "ours", "SciFact"], {}, "lacks the main_score"),
        (["scores", "ours", "SciFact", "recall_at_10"], "much", "damaged .*str"),
        (["differences", "SciFact", "theirs"], {"p": 1}, "damaged .*'queries'"),
        (["vectors", "ours"], {}, "damaged .*'dimensions'"),
        (["model"], "gone", "lacks"),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path, path, value, message):
    write_results(tmp_path / "results.json", RESULTS)
    values = json.loads((tmp_path / "results.json").read_text())
    *parents, last = path
    place = values
    for name in parents:
        place = place[name]
    place[last] = value
    (tmp_path / "results.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=message):
        read_results(tmp_path / "results.json")
