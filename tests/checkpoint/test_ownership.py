"""A folder of checkpoints belongs to one run."""

import json
import os

import pytest

from e5jax.checkpoint import manifest
from e5jax.checkpoint.ownership import FILE, check, owned
from e5jax.config import Optim, Training
from e5jax.errors import ConfigError
from e5jax.workdir.directory import Workdir

RUN = Training(seed=1)


def own(folder, workdir, run=RUN):
    with owned(folder, workdir, run):
        pass


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


def run_in(root):
    root.mkdir(parents=True)
    return Workdir(root)


def checkpoint(folder, step):
    (folder / str(step) / "parameters").mkdir(parents=True)
    manifest.write(folder / str(step), {})


def test_another_run_is_refused_and_told_whose_the_folder_is(tmp_path):
    first, second, shared = (
        run_in(tmp_path / "a/first"),
        run_in(tmp_path / "a/second"),
        tmp_path / "shared",
    )
    own(shared, first)
    before = tree(shared)
    for run in (
        RUN,
        Training(seed=1, optim=Optim(learning_rate=0.5)),
        Training(seed=1, optim=Optim(steps=2)),
    ):
        for act in (own, check):
            with pytest.raises(
                ConfigError,
                match=rf"checkpoints of another run, that of {first.root} on .*a folder of its own",
            ):
                act(shared, second, run)
    assert tree(shared) == before
    own(shared, first)
    own(shared, first, Training(seed=2))  # the directory of the run has accepted that
    own(tmp_path / "other", second)


def test_a_run_that_was_moved_or_copied_is_the_same(tmp_path):
    workdir, shared = run_in(tmp_path / "a/run"), tmp_path / "shared"
    own(shared, workdir)
    workdir.metrics.touch()
    (tmp_path / "b").mkdir()
    workdir.root.rename(tmp_path / "b/renamed")
    own(shared, Workdir(tmp_path / "b/renamed"), Training(seed=2))


def test_a_new_directory_of_the_same_name_and_training_goes_on_and_of_another_training_does_not(
    tmp_path,
):
    shared = tmp_path / "shared"
    own(shared, run_in(tmp_path / "disk1/runs/e5"))
    new = run_in(tmp_path / "disk2/runs/e5")
    with pytest.raises(ConfigError, match="another run"):
        own(shared, new, Training(seed=2))
    own(shared, new)
    own(shared, new, Training(seed=2))  # it has the name of the run now
    begun = run_in(tmp_path / "disk3/runs/e5")
    begun.metrics.touch()
    with pytest.raises(ConfigError, match="another run"):
        own(shared, begun, Training(seed=2))


def test_a_folder_with_foreign_numbers_is_refused_and_untouched(tmp_path):
    for name, inside in [("2024/photo.jpg", "shared"), ("7/notes.txt", "a/run/checkpoints")]:
        folder = tmp_path / inside
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x")
        workdir = Workdir(tmp_path / "a/run")
        workdir.root.mkdir(parents=True, exist_ok=True)
        before = tree(tmp_path)
        with pytest.raises(ConfigError, match=name.split("/", maxsplit=1)[0]):
            own(folder, workdir)
        assert tree(tmp_path) == before


def test_checkpoints_that_name_no_run_are_those_of_the_runs_own_directory_only(tmp_path):
    workdir = run_in(tmp_path / "a/run")
    checkpoint(workdir.checkpoints, 5)
    checkpoint(tmp_path / "shared", 5)
    own(workdir.checkpoints, workdir)
    with pytest.raises(ConfigError, match=r"holds 5, and no run\.json that says of which run"):
        own(tmp_path / "shared", workdir)


def test_two_copies_of_a_run_do_not_train_into_one_folder_at_once(tmp_path):
    workdir = run_in(tmp_path / "run")
    with (
        owned(tmp_path / "shared", workdir, RUN),
        pytest.raises(ConfigError, match="another process is at work there"),
    ):
        own(tmp_path / "shared", workdir)
    assert os.listdir(tmp_path / "shared") == [FILE]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"run": "x"})])
def test_a_damaged_name_is_said(text, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"run\.json: names no run"):
        own(tmp_path / "shared", run_in(tmp_path / "run"))
