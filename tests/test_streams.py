"""Output never ends a run: neither a character nor a reader that has gone; what cannot be written is one line."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.test_load import ROOT

PRELUDE = "import sys\nfrom e5jax.errors import exit_code, open_streams\nopen_streams()\n"


def python(script: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Runs a script whose streams are ours."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, **options}
    return subprocess.run([sys.executable, "-c", PRELUDE + script], cwd=ROOT, check=False, **given)  # type: ignore[call-overload]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_character_that_the_encoding_lacks_is_an_escape(encoding):
    done = python(
        "print('1 × 2 … ü \\udcff'); print('3 × 4 …', file=sys.stderr)",
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert out.endswith("\\udcff\n")
    for printed, character in ((out, "×"), (out, "…"), (out, "ü"), (err, "×"), (err, "…")):
        assert character in printed or f"\\{ascii(character)[2:-1]}" in printed


def test_a_real_command_prints_escapes_in_an_ascii_locale():
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "ascii:strict",
    }
    done = subprocess.run(
        [sys.executable, "-m", "e5jax", "plan", "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"\\u2026" in done.stdout


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_words_for_a_reader_that_has_gone_are_discarded_and_the_work_goes_on(stream, tmp_path):
    read, write = os.pipe()
    os.close(read)
    script = f"""
import os
for number in range(3):
    print("words", file=sys.{stream}, flush=True)
os.system("echo a child")  # its output goes the same way
open({str(tmp_path / "done")!r}, "w").close()
sys.exit(exit_code(lambda: 7))
"""
    done = python(script, **{stream: write})
    os.close(write)
    assert done.returncode == 7
    assert (tmp_path / "done").exists()
    assert b"roken pipe" not in (done.stderr or b"") + (done.stdout or b"")


def test_words_for_a_terminal_that_was_closed_are_discarded():
    main, terminal = pty.openpty()
    script = """
print("ready", flush=True)
sys.stdin.readline()
print("words", flush=True)
print("words", file=sys.stderr, flush=True)
sys.exit(exit_code(lambda: 7))
"""
    command = [sys.executable, "-c", PRELUDE + script]
    child = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    assert os.read(main, 100).strip() == b"ready"
    os.close(main)
    child.communicate(b"go\n", timeout=60)
    assert child.returncode == 7


@pytest.mark.parametrize(
    "words",
    ["print('result')", "sys.stdout.buffer.write(b'x' * 10**6)", "print('result'); sys.exit(0)"],
)
def test_a_full_disk_below_standard_output_is_an_error_of_one_line(words):
    script = f"def main():\n    {words}\n    return 0\nsys.exit(exit_code(main))"
    with Path("/dev/full").open("wb") as full:
        done = python(script, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith(
        b"e5jax: standard output: No space left on device; free some space"
    )
    assert done.stderr.count(b"\n") == 1


def test_a_full_disk_below_standard_error_ends_nothing():
    with Path("/dev/full").open("wb") as full:
        done = python(
            "print('x', file=sys.stderr, flush=True)\nprint('result')\nsys.exit(exit_code(lambda: 0))",
            stderr=full,
        )
    assert (done.returncode, done.stdout) == (0, b"result\n")


def test_closed_streams_do_not_become_files_of_the_run(tmp_path):
    script = f"""
file = open({str(tmp_path / "results")!r}, "w")
print("words"); print("words", file=sys.stderr); import os; os.system("echo a child")
file.write("results"); file.close()
sys.exit(exit_code(lambda: 0))
"""
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, PRELUDE + script], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == 0
    assert (tmp_path / "results").read_text() == "results"


def test_a_command_whose_reader_leaves_ends_with_its_own_exit_code():
    pipe = f"{sys.executable} -m e5jax --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", pipe], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.splitlines() == ["usage: e5jax [-h] [--version] STAGE ...", "0"]
    assert done.stderr == ""
