"""Where a run is exported to: nothing that others wrote, and nothing that the run is made of."""

import pytest

from e5jax.cli import main
from e5jax.config import Config
from e5jax.errors import CONFIG
from e5jax.train.run_record import claim
from e5jax.workdir.directory import Workdir, atomic_output


@pytest.fixture
def workdir(tmp_path) -> Workdir:
    """A run whose base an earlier export wrote."""
    made = Config()
    made.model.base = str(tmp_path / "base")
    with atomic_output(tmp_path / "base", "export") as folder:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    run = Workdir(tmp_path / "runs/a")
    claim(run, made)
    (run.checkpoints / "3/parameters").mkdir(parents=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/thesis.txt").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "base")
    return run


@pytest.mark.parametrize("kind", ["merged", "adapter"])
@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("runs/a", "this command reads it"),
        ("runs", "this command reads"),
        (".", "this command reads"),
        ("base", "this command reads it"),
        ("link", "this command reads it"),
        ("runs/a/checkpoints", "is where the run has its checkpoints"),
        ("runs/a/checkpoints/9", "is where the run has its checkpoints"),
        ("runs/a/config.json", "is a file"),
        ("runs/a/config.json/out", "config.json is a file, not a folder"),
        ("foreign", "holds thesis.txt, which `e5jax export` has not written"),
        ("foreign/thesis.txt", "is a file"),
    ],
)
def test_what_an_export_did_not_write_is_refused_and_stays(
    output, why, kind, workdir, tmp_path, capsys
):
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    assert (
        main(
            [
                "export",
                f"--workdir={workdir.root}",
                f"--output={tmp_path / output}",
                f"--format={kind}",
            ]
        )
        == CONFIG
    )
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
