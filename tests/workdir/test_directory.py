import os
import signal
import subprocess
import sys

import pytest

from e5jax.config import Config
from e5jax.errors import ConfigError
from e5jax.train.run_record import claim
from e5jax.workdir.directory import Workdir, atomic_output, read_config, write_text
from e5jax.workdir.outputs import LIST


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fill(folder, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)


def test_artifact_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "export"
    with atomic_output(target) as folder:
        fill(folder, a="1")
        assert not target.exists()
        assert folder.name == target.name
    assert content(tmp_path) == {"new/export/a": "1"}
    assert os.listdir(target.parent) == ["export"]


def test_new_folder_replaces_the_old_one_whole(tmp_path):
    for files in ({"old": "1", "both": "1"}, {"both": "2"}):
        with atomic_output(tmp_path / "export", "export") as folder:
            fill(folder, **files)
    assert content(tmp_path).keys() == {"export/both", f"export/{LIST}"}
    assert (tmp_path / "export/both").read_text() == "2"
    assert os.listdir(tmp_path) == ["export"]


@pytest.mark.parametrize("name", ["replaced", "old", "export.replaced", "export.writer"])
def test_a_folder_of_any_name_can_be_replaced(name, tmp_path):
    for text in ("1", "2"):
        with atomic_output(tmp_path / name, "export") as folder:
            fill(folder, a=text)
    assert content(tmp_path)[f"{name}/a"] == "2"


def write_half_and_fail(path, error):
    with atomic_output(path) as folder:
        fill(folder, a="2")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_artifact_and_nothing_else(error, tmp_path):
    fill(tmp_path / "export", a="1")
    with pytest.raises(error):
        write_half_and_fail(tmp_path / "export", error)
    assert content(tmp_path) == {"export/a": "1"}
    assert os.listdir(tmp_path) == ["export"]


def test_failure_of_the_first_writer_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="half"):
        write_half_and_fail(tmp_path / "export", ValueError("half"))
    assert not list(tmp_path.iterdir())


def test_a_writer_that_writes_nothing_does_not_cost_the_old_folder(tmp_path):
    fill(tmp_path / "export", a="1")
    with (
        pytest.raises(AssertionError, match="the writer wrote nothing"),
        atomic_output(tmp_path / "export"),
    ):
        pass
    assert content(tmp_path) == {"export/a": "1"}


KILLED = """
import os, pathlib, signal, sys
from e5jax.workdir.directory import atomic_output
path = pathlib.Path(sys.argv[1])
if sys.argv[2] == "replacing":
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with atomic_output(path, "export") as folder:
    folder.mkdir()
    (folder / "a").write_text("2")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "waiting":
        print("ready", flush=True)
        sys.stdin.read()
"""


def write_elsewhere(path, how):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize("how", ["writing", "replacing"])
def test_what_a_killed_writer_left_is_gone_after_the_next_and_the_old_folder_is_not(how, tmp_path):
    with atomic_output(tmp_path / "export", "export") as folder:
        fill(folder, a="1")
    with write_elsewhere(tmp_path / "export", how) as killed:
        assert killed.wait(60) == -signal.SIGKILL
    (tmp_path / ".export.mine").mkdir()
    (tmp_path / ".export.mine/thesis").write_text("years of work")
    assert len(list(tmp_path.glob(".export.*"))) == 2
    with pytest.raises(ValueError, match="half"):
        write_half_and_fail(tmp_path / "export", ValueError("half"))
    assert (tmp_path / "export/a").read_text() == "1"
    assert sorted(os.listdir(tmp_path)) == [".export.mine", "export"]
    assert (tmp_path / ".export.mine/thesis").read_text() == "years of work"


def test_a_writer_that_lives_is_left_alone(tmp_path):
    with write_elsewhere(tmp_path / "export", "waiting") as other:
        other.stdout.readline()
        with atomic_output(tmp_path / "export", "export") as folder:
            fill(folder, a="1")
        assert len(list(tmp_path.glob(".export.*"))) == 1
        other.stdin.close()
        assert other.wait(60) == 0
    assert (tmp_path / "export/a").read_text() == "2"


def test_text_is_written_as_utf8_and_replaces_a_file(tmp_path):
    write_text(tmp_path / "a.json", "first")
    write_text(tmp_path / "a.json", "Größe 😀\n")
    assert (tmp_path / "a.json").read_bytes() == "Größe 😀\n".encode()
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json") as caught:
        read_config(Workdir(tmp_path))
    assert f"--workdir={tmp_path}" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "mistral"}'])
def test_a_config_of_something_else_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="config"):
        claim(Workdir(tmp_path), Config())


def test_no_two_artifacts_share_a_place(tmp_path):
    names = [name for name, value in vars(Workdir).items() if isinstance(value, property)]
    runs = (Workdir(tmp_path), Workdir(tmp_path).pretrain)
    places = [getattr(run, name) for run in runs for name in names]
    places = [place.root if isinstance(place, Workdir) else place for place in places]
    assert len({str(place) for place in places}) == len(places) == 2 * len(names)
