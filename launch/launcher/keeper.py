"""Has a run's directory copied to its bucket, by a process of its own, while the run goes on."""

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from e5jax.errors import RunError
from launch.launcher.supervisor import say

EVERY = 60.0  # seconds between two copies
LAST = 3_600.0  # seconds that the last one may take


class Keeper:
    """Of one run; without a bucket it does nothing."""

    def __init__(self, python: str, workdir: Path, bucket: str, environment: Mapping[str, str]):
        self._program = [python, "-m", "launch.launcher.mirror"]
        self._where, self._environment = [str(workdir), bucket], environment
        self._bucket = bucket
        self._child: subprocess.Popen[bytes] | None = None
        self._next = time.monotonic() + EVERY

    def fetch(self) -> None:
        """Brings what an earlier machine left, if this one is new. Raises RunError when the bucket does not answer."""
        if not self._bucket:
            return
        command = [*self._program, "pull", *self._where]
        done = subprocess.run(
            command,
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()
            why = said[-1] if said else "no answer"
            raise RunError(
                f"{self._bucket}: {why}; is there such a bucket (gcloud storage ls), and may this machine read and write it?"
            )

    def tick(self) -> None:
        """Begins a copy when it is time, and the one before has ended."""
        if (
            not self._bucket
            or time.monotonic() < self._next
            or (self._child and self._child.poll() is None)
        ):
            return
        self._report()
        self._next = time.monotonic() + EVERY
        self._child = subprocess.Popen(
            [*self._program, "push", *self._where], env=self._environment, stderr=subprocess.PIPE
        )

    def last(self) -> None:
        """Copies what is there in the end, and waits for it."""
        if not self._bucket:
            return
        if self._child:
            self._child.wait(LAST)
        self._next = 0.0
        self.tick()
        assert self._child is not None, "it has been started"
        self._child.wait(LAST)
        self._report()

    def _report(self) -> None:
        if self._child is None or self._child.stderr is None:
            return
        with self._child.stderr as words:
            said = words.read().decode(errors="replace").strip().splitlines()
        if self._child.returncode:
            say(f"{self._bucket}: not copied: {said[-1] if said else self._child.returncode}")
        self._child = None
