"""A command replaces what it wrote, and refuses all else before it begins."""

import os

import pytest

from e5jax.errors import ConfigError
from e5jax.workdir import lock
from e5jax.workdir.directory import atomic_output, write_text, writing
from e5jax.workdir.outputs import LIST


def folder(path, command="export", **files):
    with atomic_output(path, command) as new:
        new.mkdir()
        for name, text in (files or {"a": "1"}).items():
            (new / name).write_text(text)


def begin(path, command="export", inputs=(), **kind):
    with writing(command, path, inputs=inputs, **kind):
        pass


def everything(place):
    return {str(path): path.is_file() and path.read_bytes() for path in place.rglob("*")}


FOREIGN = {
    "a folder of others": lambda path: (path.mkdir(), (path / "thesis.txt").write_text("x")),
    "a file of others added": lambda path: (folder(path), (path / "thesis.txt").write_text("x")),
    "a folder of others added": lambda path: (
        folder(path),
        (path / "b").mkdir(),
        (path / "b/thesis.txt").write_text("x"),
    ),
    "a file edited": lambda path: (folder(path), (path / "a").write_text("years of work")),
    "a file replaced by a link": lambda path: (
        folder(path),
        (path / "a").unlink(),
        (path / "a").symlink_to("/etc/hostname"),
    ),
    "the output of another command": lambda path: folder(path, "data clean"),
    "a file": lambda path: path.write_text("x"),
    "a link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
    "the list alone, damaged": lambda path: (
        path.mkdir(),
        (path / LIST).write_text('{"command": "exp'),
        (path / "a").touch(),
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_folder_that_a_command_did_not_write_is_refused_before_the_work_and_at_its_end(
    case, tmp_path
):
    FOREIGN[case](tmp_path / "out")
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(ConfigError, match=r"--output=\S*out: (is|holds) .*choose another --output"):
        begin(tmp_path / "out", folder=True)
    with pytest.raises(ConfigError, match="has not written"):
        folder(tmp_path / "out")
    assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.mark.parametrize(
    "case",
    ["a folder of others", "a file", "a link to a file", "a link that leads nowhere", "a pipe"],
)
def test_a_file_that_a_command_did_not_write_is_refused(case, tmp_path):
    FOREIGN[case](tmp_path / "out")
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(ConfigError, match=r"--output=\S*out: is .*choose another --output"):
        begin(tmp_path / "out", "encode")
    with pytest.raises(ConfigError, match="has not written"):
        write_text(tmp_path / "out", "new", "encode")
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_a_command_replaces_its_own_files_and_folders_until_somebody_changes_them(tmp_path):
    for text in ("1", "2"):
        folder(tmp_path / "export", a=text)
        write_text(tmp_path / "v.npy", text, "encode")
    begin(tmp_path / "export", folder=True)
    begin(tmp_path / "v.npy", "encode")
    with pytest.raises(ConfigError, match="has not written"):
        begin(tmp_path / "v.npy", "data convert")
    (tmp_path / "v.npy").write_text("3")
    os.utime(tmp_path / "v.npy", ns=(1, 1))
    with pytest.raises(ConfigError, match="or that has changed since"):
        begin(tmp_path / "v.npy", "encode")


def test_an_empty_folder_is_no_obstacle(tmp_path):
    (tmp_path / "export").mkdir()
    folder(tmp_path / "export")
    assert (tmp_path / "export/a").read_text() == "1"


def test_a_copied_folder_is_still_known(tmp_path):
    folder(tmp_path / "first", a="1")
    os.makedirs(tmp_path / "copy")
    for path in (tmp_path / "first").iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    begin(tmp_path / "copy", folder=True)


@pytest.mark.parametrize("place", ["base", "base/part", "."])
def test_an_output_that_holds_an_input_is_refused(place, tmp_path):
    folder(tmp_path / "base", part="1")
    with pytest.raises(ConfigError, match="this command reads"):
        begin(tmp_path / place, folder=True, inputs=[tmp_path / "base/part"])
    (tmp_path / "link").symlink_to(tmp_path / "base")
    with pytest.raises(ConfigError, match="this command reads"):
        begin(tmp_path / "link", folder=True, inputs=[tmp_path / "base"])


def test_a_file_where_a_folder_would_be_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file is a file, not a folder"):
        begin(tmp_path / "file/deeper/out", folder=True)
    begin(tmp_path / "new/deeper/out", folder=True)
    assert os.listdir(tmp_path) == ["file"]


def test_two_commands_with_one_output_are_one_too_many(tmp_path):
    with (
        writing("encode", tmp_path / "v.npy"),
        pytest.raises(ConfigError, match=r"v\.npy: another process is at work there"),
    ):
        begin(tmp_path / "v.npy", "encode")
    with writing("encode", tmp_path / "v.npy"):
        begin(tmp_path / "w.npy", "encode")
    assert not list(tmp_path.iterdir())
    assert not lock.is_abandoned(tmp_path / "nothing")
