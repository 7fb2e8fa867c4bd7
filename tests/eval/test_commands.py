import pytest

from e5jax.cli import parser
from e5jax.config.commands import EvalOptions
from e5jax.config.options import read_options
from e5jax.errors import ConfigError
from e5jax.eval.commands import main


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model=gone", "there is no such folder"),
        ("--beside=theirs=gone", "no such folder"),
        ("--data=gone", "no clean.json"),
    ],
)
def test_missing_files_are_refused_before_a_model_is_read(option, message, tmp_path):
    (tmp_path / "model").mkdir()  # empty: reading it would be another error
    options = [f"--model={tmp_path / 'model'}", "--tasks=SciFact", f"--output={tmp_path / 'out'}"]
    with pytest.raises(ConfigError, match=message):
        main(read_options(EvalOptions, parser().parse_args(["eval", *options, option])))


def test_results_of_an_earlier_version_are_refused_before_a_model_is_read(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "out/mteb").mkdir(parents=True)
    (tmp_path / "out/mteb/settings.json").write_text("{}")
    (tmp_path / "out/results.json").write_text('{"tasks": {"ArguAna": {}}, "means": {}}')
    options = [f"--model={tmp_path / 'model'}", "--tasks=SciFact", f"--output={tmp_path / 'out'}"]
    with pytest.raises(ConfigError, match=r"schema=None.* delete the file and run the command"):
        main(read_options(EvalOptions, parser().parse_args(["eval", *options])))
