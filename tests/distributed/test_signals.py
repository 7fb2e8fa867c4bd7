"""Signals to real processes: they exit at once while compiling, and save first while training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e5jax.distributed.signals import SIGNALS, Signals
from e5jax.errors import STOPPED, StoppedError

# Runs no Python bytecode after "ready", as XLA does while it compiles.
DEAF = """
import ctypes, sys
from e5jax.distributed.signals import Signals
with Signals().listening():
    print("ready", flush=True)
    ctypes.CDLL(None).sleep(60)
"""
SAVING = """
import sys, time
from e5jax.cli import main
from e5jax import cli as command
from e5jax.distributed.signals import Signals
signals = Signals()
def go(args, overrides, only=None, allow=False):
    with signals.listening(), signals.held():
        print("ready", flush=True)
        while not signals.received:
            time.sleep(0.01)
        print("saved", flush=True)
command._run = go
sys.exit(main(["run", "--config=none.py"]))
"""
# Prints line after line, as training does, for a second or until a signal, and then saves.
TERMINAL = """
import fcntl, pathlib, signal, sys, termios, time
from e5jax import cli as command
from e5jax.distributed.signals import Signals
signals = Signals()
_, handler, mark = sys.argv
signal.signal(signal.SIGHUP, getattr(signal, handler))
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
def go(args, overrides, only=None, allow=False):
    with signals.listening(), signals.held():
        end = time.monotonic() + 1
        print("ready", flush=True)
        while not signals.received and time.monotonic() < end:
            print("a step", flush=True)
            print("a step", file=sys.stderr, flush=True)
        pathlib.Path(mark).write_text("saved" if signals.received else "went on")
command._run = go
sys.argv = ["e5jax", "run", "--config=none.py"]
command.command()
"""


def start(code: str) -> subprocess.Popen:
    # The tests themselves may run with nohup.
    code = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n{code}"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        stdout=-1,
        stderr=-1,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_runs_no_python_stops_at_once(number):
    process = start(DEAF)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == STOPPED
    assert said == f"e5jax: {number.name}: stopped; the same command resumes\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_what_holds_a_notice_saves_first(number):
    process = start(SAVING)
    process.send_signal(number)
    out, said = process.communicate(timeout=20)
    assert process.returncode == STOPPED
    assert out == "saved\n"
    assert said == "e5jax: stopped by a signal; everything is saved: the same command resumes\n"


def test_without_a_notice_nothing_happens_and_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    signals = Signals()
    with signals.listening():
        assert signal.getsignal(signal.SIGTERM) not in before
        with signals.held():
            assert not signals.received
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_is_received_by_the_signals_that_listen_and_no_others():
    def hold(signals: Signals) -> None:
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            while not signals.received:
                time.sleep(0.001)

    signals, later = Signals(), Signals()
    with signals.listening(), pytest.raises(StoppedError):
        hold(signals)
    with later.listening():
        assert not later.received


def test_a_notice_to_a_process_that_has_done_its_work_does_not_change_its_exit_code():
    ending = "atexit.register(lambda: print('ready', flush=True) or time.sleep(0.5))"
    process = start(
        f"import atexit, time\n{ending}\nfrom e5jax import cli as it\n"
        "it.main = lambda: 0\nit.command()"
    )
    for number in SIGNALS:
        process.send_signal(number)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_is_a_notice_unless_the_run_was_started_with_nohup(ignored, tmp_path):
    mark, handler = tmp_path / "mark", "SIG_IGN" if ignored else "SIG_DFL"
    ours, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, handler, str(mark)],
        cwd=Path(__file__).parents[2],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    while b"ready" not in os.read(ours, 1024):
        pass
    os.close(ours)
    assert (process.wait(timeout=20), mark.read_text()) == (
        (0, "went on") if ignored else (STOPPED, "saved")
    )
