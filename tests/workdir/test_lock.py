"""One process at a time, on one host and on several that share a file system."""

import json
import re
import signal
import subprocess
import sys
import threading

import pytest

from e5jax.errors import ConfigError
from e5jax.workdir import lock

HOLDS = """
import pathlib, sys
from e5jax.workdir import lock
with lock.hold(pathlib.Path(sys.argv[1]), "--output=x", "choose another"):
    print("holds", flush=True)
    sys.stdin.read()
"""


def held_elsewhere(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"holds\n"
    return process


def take(path):
    with lock.hold(path, "--output=x", "choose another"):
        return lock._read(path)


def other_host(path, **changed):
    """The lock file of a process on another host, whose kernel alone knows that it is locked."""
    holder = lock.Holder("far", 7, "2026-01-01T00:00:00Z", "another boot")._replace(**changed)
    path.write_text(json.dumps(holder._asdict()))
    return holder


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(lock, "STALE", 1.0)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    monkeypatch.setattr(lock, "POLL", 0.05)


def test_the_second_process_names_the_first_and_the_file_is_gone_at_the_end(tmp_path):
    with held_elsewhere(tmp_path / ".lock") as first:
        for _ in range(2):
            with pytest.raises(ConfigError) as caught:
                take(tmp_path / ".lock")
            said = (
                r"--output=x: another process is at work there "
                r"\(process (\d+) on \S+, since 20\S+Z\); wait.*or choose another"
            )
            found = re.fullmatch(said, str(caught.value))
            assert found is not None, caught.value
            assert int(found[1]) == first.pid
        first.stdin.close()
        assert first.wait(60) == 0
    assert not list(tmp_path.iterdir())
    assert take(tmp_path / ".lock") is not None


def test_a_killed_holder_on_this_host_is_recognised_at_once(tmp_path, capsys):
    with held_elsewhere(tmp_path / ".lock") as first:
        first.send_signal(signal.SIGKILL)
        first.wait(60)
    assert (tmp_path / ".lock").exists()
    assert take(tmp_path / ".lock") is not None
    assert "waiting" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("fast")
def test_a_holder_on_another_host_that_gives_signs_is_named(tmp_path):
    path, over = tmp_path / ".lock", threading.Event()
    other_host(path)

    def beat():
        for number in range(1, 100):
            if over.wait(0.2):
                return
            other_host(path, beat=number)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with pytest.raises(ConfigError, match="process 7 on far, since 2026-01-01T00:00:00Z"):
            take(path)
    finally:
        over.set()
        beating.join()
    assert path.exists()


@pytest.mark.usefixtures("fast")
def test_a_holder_on_another_host_without_a_sign_is_waited_for_and_replaced(tmp_path, capsys):
    other_host(tmp_path / ".lock")
    assert take(tmp_path / ".lock").host != "far"
    assert (
        "--output=x: held by process 7 on far, since 2026-01-01T00:00:00Z; waiting up to 1 s"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "far"}'])
def test_a_lock_file_that_names_nobody_is_replaced(text, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WRITING", 0.1)
    (tmp_path / ".lock").write_text(text)
    assert take(tmp_path / ".lock") is not None


@pytest.mark.usefixtures("fast")
def test_without_kernel_locks_signs_of_life_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_flock", lambda _: False)  # as on a file system that has none
    with (
        lock.hold(tmp_path / ".lock", "first", "wait"),
        pytest.raises(ConfigError, match="at work there"),
    ):
        take(tmp_path / ".lock")
    other_host(tmp_path / ".lock")
    assert take(tmp_path / ".lock").host != "far"


def test_a_process_whose_lock_was_taken_over_stops(tmp_path):
    code = f"from e5jax.workdir import lock\nlock.BEAT = 0.1\n{HOLDS}"
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as slept:
        slept.stdout.readline()
        (tmp_path / ".new").touch()
        other_host(tmp_path / ".new")
        (tmp_path / ".new").rename(tmp_path / ".lock")
        assert slept.wait(60) == 1
        assert "taken over by process 7 on far" in slept.stderr.read()
    assert (tmp_path / ".lock").exists()  # it is the other one's


def test_of_many_that_begin_at_once_one_holds(tmp_path):
    code = HOLDS.replace(
        "import pathlib, sys", "import pathlib, sys\nfrom e5jax.errors import ConfigError"
    ).replace("with lock", "print('ready', flush=True); sys.stdin.readline()\nwith lock")
    command = [sys.executable, "-c", code, str(tmp_path / ".lock")]
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    losers = []
    while len(losers) < 3:
        losers = [process for process in processes if process.poll() is not None]
    (winner,) = set(processes) - set(losers)
    assert winner.stdout.readline() == "holds\n"
    for process in losers:
        assert f"(process {winner.pid} on " in process.stderr.read()
    winner.stdin.close()
    assert winner.wait(60) == 0
    for process in processes:
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
