"""Which exit codes lead to a restart, after how long, and when no more; with processes that do as a script says."""

import os
import signal
import subprocess
import sys
import time

import pytest

from launch.launcher.supervisor import (
    Attempt,
    Policy,
    StopSignals,
    common_exit_code,
    decide,
    is_crash_loop,
    spawn,
    supervise,
)

# The launcher knows no JAX; beside other tests it is in this process, and warns of every fork.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")
QUICK = Policy(restarts=5, first=0.01, most=0.02, patience=2.0, grace=5.0)
CODES = {0: False, 75: True, 99: True, 134: True, 137: True, 143: True} | dict.fromkeys(
    [1, 2, 3, 4, 64, 127, 130, 139, 255], False
)


@pytest.mark.parametrize(("code", "again"), CODES.items())
def test_an_exit_code_says_whether_it_is_worth_while_to_start_again(code, again):
    assert decide([Attempt(code, 7)], QUICK).restart is again


# What happened, attempt by attempt: exit code and step; and whether there is another attempt.
TABLE = {
    "stopped and saved, each time further": ([(75, 10), (75, 20), (75, 30)], True),
    "stopped before it came further is no crash": ([(75, 10), (75, 10), (75, 10)], True),
    "killed at two steps far apart": ([(137, 10), (137, 30)], True),
    "killed at an earlier step, as other things happen earlier": ([(137, 480), (143, 430)], True),
    "the same step twice": ([(134, 10), (134, 10)], False),
    "the same step twice, with another code": ([(99, 10), (137, 10)], False),
    "the next step had been started": ([(137, 10), (137, 11)], False),
    "never began": ([(137, 0), (137, 0)], False),
    "a crash after a notice": ([(75, 10), (137, 10)], True),
    "the same step twice, long ago": ([(137, 10), (75, 10), (137, 90)], True),
    "an error after crashes": ([(137, 10), (1, 30)], False),
    "done in the end": ([(137, 10), (0, 100)], False),
    "no more restarts": ([(75, step) for step in range(0, 60, 10)], False),
    "the last restart": ([(75, step) for step in range(0, 50, 10)], True),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_table(case):
    attempts, again = TABLE[case]
    assert decide([Attempt(*attempt) for attempt in attempts], QUICK).restart is again


def test_the_wait_doubles_while_nothing_moves_and_begins_anew_when_something_does():
    policy, attempts, waits = Policy(restarts=20, first=1, most=8), [], []
    for step in (5, 5, 5, 5, 5, 5, 50, 50):
        attempts.append(Attempt(75, step))
        waits.append(decide(attempts, policy).seconds)
    assert waits == [1, 2, 4, 8, 8, 8, 1, 2]


def test_a_verdict_names_code_step_and_what_was_exhausted():
    assert "exit code 3" in decide([Attempt(3, 7)], QUICK).reason
    assert "exit code 99 at step 7, twice in a row" in decide([Attempt(99, 7)] * 2, QUICK).reason
    assert "5 restarts (--max-restarts)" in decide([Attempt(75, 7)] * 6, QUICK).reason


@pytest.mark.parametrize(
    ("codes", "one"),
    [
        ([0, 0], 0),
        ([0, 99], 99),
        ([137, 99], 137),
        ([99, 3], 3),
        ([75, 1, 143], 1),
        ([143, 75], 143),
        ([0], 0),
        ([139, 75], 139),
    ],
)
def test_codes_of_several_processes_make_one(codes, one):
    assert common_exit_code(codes) == one


def test_one_attempt_is_no_loop():
    assert not is_crash_loop([Attempt(137, 0)])


# --- real processes --------------------------------------------------------------------------------------------

# Counts its starts in a file, and ends with the code that the script has for it; SIGTERM ends it with 75.
CHILD = """
import os, signal, sys, time
counter, codes = sys.argv[1], sys.argv[2].split(",")
with open(counter, "a") as file:
    file.write(".")
number = os.path.getsize(counter)
def told(*_):
    time.sleep(0.1)
    os._exit(75)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else told)
print("ready", number, flush=True)
code = codes[min(number, len(codes)) - 1]
if code == "wait":
    time.sleep(60)
if code.startswith("-"):
    os.kill(os.getpid(), -int(code))
sys.exit(int(code))
"""


def scripted(
    tmp_path,
    codes: str,
    *words: str,
    count: int = 1,
    policy: Policy = QUICK,
    step=lambda: 0,
    before=lambda _: None,
):
    """Supervises processes that end so, attempt by attempt. Returns the end, and how often each was started."""
    begun: list[subprocess.Popen] = []

    def start(adopt):
        for number in range(count):
            argv = [
                sys.executable,
                "-c",
                CHILD,
                str(tmp_path / f"count-{number}"),
                codes.split("|")[number % len(codes.split("|"))],
            ]
            child = spawn([*argv, *words], os.environ, tmp_path / f"log-{number}")
            begun.append(child)
            adopt(child)
        before(len(begun))

    end = supervise(start, step, policy)
    return *end, [(tmp_path / f"count-{number}").stat().st_size for number in range(count)], begun


def test_it_starts_again_until_it_is_done(tmp_path):
    steps = iter(range(0, 1_000, 10))
    assert scripted(tmp_path, "75,99,-9,-15,-6,0", step=lambda: next(steps))[:3] == (0, None, [6])


@pytest.mark.parametrize("code", ["1", "2", "3"])
def test_it_does_not_start_again_what_says_no(tmp_path, code):
    assert scripted(tmp_path, f"{code},0")[:3] == (int(code), None, [1])


def test_a_crash_loop_ends_after_the_second_crash(tmp_path, capfd):
    assert scripted(tmp_path, "-9", step=lambda: 42)[:3] == (137, None, [2])
    assert "at step 42, twice in a row" in capfd.readouterr().err


def test_restarts_come_to_an_end(tmp_path):
    assert scripted(tmp_path, "75")[:3] == (75, None, [6])


def tell(number: int, *logs) -> None:
    """Signals this process once the children listen."""
    deadline = time.monotonic() + 60
    while (
        not all(log.exists() and "ready" in log.read_text() for log in logs)
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    os.kill(os.getpid(), number)


@pytest.fixture
def no_nohup():
    """As if the tests had not been started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("no_nohup")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_told_to_stop_it_hands_that_on_waits_and_does_not_start_again(tmp_path, number):
    found = scripted(
        tmp_path,
        "wait",
        count=2,
        before=lambda _: tell(number, tmp_path / "log-0", tmp_path / "log-1"),
    )
    assert found[:3] == (75, number, [1, 1])


@pytest.mark.parametrize("nohup", [False, True])
def test_a_closed_terminal_tells_it_to_stop_unless_it_was_started_with_nohup(nohup):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    try:
        with StopSignals() as told:
            os.kill(os.getpid(), signal.SIGHUP)
            told.sleep(0.01)
            assert told.signal == (None if nohup else signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_told_while_it_waits_for_the_next_attempt_it_begins_none(tmp_path):
    slow = QUICK._replace(first=30.0, most=30.0)

    def note_then_tell():
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert scripted(tmp_path, "75", policy=slow, step=note_then_tell)[:3] == (
        75,
        signal.SIGTERM,
        [1],
    )


def test_whoever_is_left_behind_is_told_and_then_killed(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("launch.launcher.supervisor.KILL_DELAY", 0.5)
    policy = QUICK._replace(patience=1.0)
    code, _, starts, begun = scripted(tmp_path, "3|wait", "deaf", count=2, policy=policy)
    assert (code, starts) == (3, [1, 1])
    assert begun[1].returncode == -signal.SIGKILL
    assert f"pid {begun[1].pid} does not exit" in capfd.readouterr().err


def test_a_process_dies_with_its_supervisor(tmp_path):
    program = f"""
import os, sys, time
from pathlib import Path
from launch.launcher.supervisor import spawn
child = spawn([sys.executable, "-c", "import time; time.sleep(60)"], os.environ, Path({str(tmp_path / "log")!r}))
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
