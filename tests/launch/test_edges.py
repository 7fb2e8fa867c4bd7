"""The launcher's own files and output: what is wrong is one line, and a reader that leaves ends no run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.launcher.__main__ import main
from tests.config.test_load import ROOT
from tests.test_streams import python

CONFIG = "configs/quickstart.py"
LATIN = b"\xff\xfe=words\n"


def one_line(capsys, *words: object) -> str:
    """What the launcher says of these words, which it refuses."""
    assert main([str(word) for word in words]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    "options",
    [
        ("--key-file={}", f"--python={sys.executable}"),
        ("--host-file={}", "--target=ssh", "--dry-run"),
    ],
    ids=" ".join,
)
def test_a_file_that_is_not_utf8_is_named(options, tmp_path, capsys):
    file = tmp_path / "latin.txt"
    file.write_bytes(LATIN)
    file.chmod(0o600)
    words = [option.format(file) for option in options]
    line = one_line(capsys, "train", CONFIG, f"--workdir={tmp_path / 'run'}", *words)
    assert line == f"e5jax: {words[0]}: not UTF-8 (invalid start byte at byte 0); save it as UTF-8"


@pytest.mark.parametrize(("content", "reason"), [(LATIN, "not UTF-8"), (b'{"first":', "not JSON")])
def test_a_damaged_state_is_named(content, reason, tmp_path, capsys):
    file = tmp_path / "launch" / "host-0.json"
    file.parent.mkdir()
    file.write_bytes(content)
    assert f"{file}: {reason}" in one_line(capsys, "host", "status", f"--workdir={tmp_path}")


def test_an_interpreter_that_cannot_run_is_named(tmp_path, capsys):
    line = one_line(
        capsys, "train", CONFIG, f"--workdir={tmp_path / 'run'}", f"--python={tmp_path}"
    )
    assert line.startswith(f"e5jax: {tmp_path}: Permission denied; ")


def test_a_log_is_followed_to_its_end_when_nobody_reads_it(tmp_path):
    log = tmp_path / "process-0.log"
    log.write_text("")
    read, write = os.pipe()
    os.close(read)
    script = f"""
from pathlib import Path
from launch.launcher.status import Tail
log = Path({str(log)!r})
tail = Tail(log)
for words in ("one", "two"):
    with log.open("a") as file:
        file.write(words)
    tail.more()
sys.exit(exit_code(lambda: 7))
"""
    done = python(script, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (7, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_help_is_printed_in_every_encoding(encoding, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launch.launcher", "train", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
