"""Three machines with real sshds: a run trains on all of them, whatever becomes of the connection; one that is cut off is named."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.launcher import record
from tests.faults.material import ROOT
from tests.faults.nursery import FLAGS
from tests.launch.machines import Machines, missing
from tests.launch.runs import ASKED, LONG, Place, comes_to, pid_of, until

pytestmark = [
    pytest.mark.skipif(ASKED not in os.environ, reason=f"{ASKED} is not set"),
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]
STEPS = 40
# Six devices in all; a machine that gives no sign for five seconds is lost.
OPTIONS = (
    "--devices=2",
    "--config.batch.queries=24",
    "--config.batch.shards=6",
    "--config.watchdog.silence=5",
    "--config.checkpoint.every=5",
)


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as made:
        yield made


def launch(
    place: Place, machines: Machines, run: str, *options: str, steps: int = STEPS
) -> subprocess.CompletedProcess[str]:
    words = (
        "--target=ssh",
        f"--hosts={','.join(machines.names)}",
        f"--ssh-config={machines.config}",
        "--allow-dirty",
    )
    around = (f"--root={place.folder / 'e5jax'}", f"--env=XLA_FLAGS={FLAGS}", "--max-restarts=5")
    cache = f"--env=JAX_COMPILATION_CACHE_DIR={place.folder / 'cache'}"
    command = place.command(run, *words, *around, cache, *OPTIONS, *options, steps=steps)
    return subprocess.run(
        command, cwd=place.folder, capture_output=True, text=True, check=False, timeout=LONG
    )


def attempts(run: Path) -> list[int]:
    return [len(state.attempts) for _, state in record.states(run)]


def log(run: Path, process: int) -> str:
    return record.Files(run).log(process).read_text(errors="replace")


def test_a_host_that_is_cut_off_is_named_all_stop_and_the_restart_ends_with_the_same_bits(
    place, machines
):
    run = place.folder / "test-ssh-cut"
    done = launch(place, machines, "test-ssh-cut")
    assert done.returncode == 0, done.stderr
    assert re.findall(r"test-ssh-cut on (host-[abc]): pid \d+", done.stdout) == list(machines.names)
    until(lambda: any(run.glob("checkpoints/*/MANIFEST")), lambda: log(run, 0))
    machines.cut(2)
    begin = time.monotonic()
    shown = place.wrapper("status", "test-ssh-cut")
    assert "host-c: ssh: exit code 255" in shown.stdout
    until(lambda: all(count >= 1 for count in attempts(run)), lambda: f"{record.states(run)}", 60)
    print(
        f"all stopped {time.monotonic() - begin:.1f} s after the cut: {[state.attempts for _, state in record.states(run)]}"
    )
    for process in range(2):
        assert re.search(
            r"process 2 \(host-c, pid \d+\) gives no sign of itself", log(run, process)
        ), log(run, process)
    machines.mend(2)
    until(lambda: all(state.end == 0 for _, state in record.states(run)), lambda: log(run, 0))
    assert re.search(r"resumes at step ([1-9]\d*)", log(run, 0))
    assert launch(place, machines, "test-ssh-whole").returncode == 0
    whole = place.folder / "test-ssh-whole"
    until(
        lambda: (
            len(record.states(whole)) == 3
            and all(state.end == 0 for _, state in record.states(whole))
        ),
        lambda: log(whole, 0),
    )
    one, other = place.digests("test-ssh-whole", "test-ssh-cut")
    assert one["step"] == STEPS
    assert other == one


def test_a_lost_connection_changes_nothing_and_stop_saves_on_all_hosts(place, machines):
    run = place.folder / "test-ssh-lost"
    assert launch(place, machines, "test-ssh-lost", steps=4_000).returncode == 0
    comes_to(run, 2, 5)
    follower = subprocess.Popen(
        [str(ROOT / "launch/train.sh"), "logs", "test-ssh-lost", "--follow"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert follower.stdout is not None
    assert follower.stdout.readline()
    os.killpg(follower.pid, signal.SIGKILL)
    follower.wait()
    follower.stdout.close()
    before = [pid_of(run, process) for process in range(3)]
    again = launch(place, machines, "test-ssh-lost", steps=4_000)
    assert (again.returncode, again.stdout.count("already running")) == (0, 3), (
        again.stdout + again.stderr
    )
    step = int(record.Files(run).phase(0).read_text().split()[1])
    comes_to(run, 0, step + 5)
    assert [pid_of(run, process) for process in range(3)] == before
    assert place.wrapper("stop", "test-ssh-lost").returncode == 0
    assert [state.end for _, state in record.states(run)] == [75, 75, 75]
    steps = {state.attempts[0][1] for _, state in record.states(run)}
    assert max(int(path.parent.name) for path in run.glob("checkpoints/*/MANIFEST")) in steps
    assert attempts(run) == [1, 1, 1]


def test_hosts_with_other_versions_are_refused_and_named(place, machines, tmp_path):
    other = tmp_path / "python"
    real, changed = sys.executable, 's/"jax": "0.10.2"/"jax": "0.10.1"/'
    other.write_text(f"""#!/bin/sh
case "$(hostname) $*" in
host-b*versions) {real} "$@" | sed '{changed}' ;;
*) exec {real} "$@" ;;
esac
""")
    other.chmod(0o755)
    done = launch(place, machines, "test-ssh-skew", f"--python={other}")
    assert done.returncode == 3
    assert re.search(
        r"the hosts have different versions: .*jax is 0\.10\.2 on host-a and 0\.10\.1 on host-b",
        done.stderr,
    ), done.stderr
    assert not (place.folder / "test-ssh-skew").exists()


def test_a_host_that_cannot_be_reached_is_named_before_anything_begins(place, machines):
    machines.cut(1)
    try:
        done = launch(place, machines, "test-ssh-unreachable")
    finally:
        machines.mend(1)
    assert done.returncode == 1
    assert re.search(
        r"^e5jax: host-b: ssh: exit code 255: .*; cannot reach the host", done.stderr
    ), done.stderr
    assert not (place.folder / "test-ssh-unreachable").exists()
