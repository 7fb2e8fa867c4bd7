"""Copies a run's directory to its bucket while the run continues, in a process of its own."""

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from e5jax.errors import RunError
from launch.launcher.supervisor import say

INTERVAL = 60.0  # seconds between two copies
LAST_COPY_TIMEOUT = 3_600.0  # seconds


class BucketSync:
    """Copies of one run's directory; does nothing if `bucket` is empty."""

    def __init__(self, python: str, workdir: Path, bucket: str, environment: Mapping[str, str]):
        self._program = [python, "-m", "launch.launcher.mirror"]
        self._paths, self._environment = [str(workdir), bucket], environment
        self._bucket = bucket
        self._child: subprocess.Popen[bytes] | None = None
        self._next = time.monotonic() + INTERVAL

    def fetch(self) -> None:
        """Downloads the files of an earlier machine. Raises RunError if the bucket fails."""
        if not self._bucket:
            return
        result = subprocess.run(
            [*self._program, "pull", *self._paths],
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if result.returncode:
            lines = result.stderr.strip().splitlines()
            raise RunError(
                f"{self._bucket}: {lines[-1] if lines else 'no answer'}; does the bucket exist "
                "(gcloud storage ls), and may this machine read and write it?"
            )

    def tick(self) -> None:
        """Starts a copy if one is due and the previous one has ended."""
        copying = self._child is not None and self._child.poll() is None
        if not self._bucket or time.monotonic() < self._next or copying:
            return
        self._report()
        self._next = time.monotonic() + INTERVAL
        self._child = subprocess.Popen(
            [*self._program, "push", *self._paths], env=self._environment, stderr=subprocess.PIPE
        )

    def finish(self) -> None:
        """Copies the final state of the directory and waits for it."""
        if not self._bucket:
            return
        if self._child:
            self._child.wait(LAST_COPY_TIMEOUT)
        self._next = 0.0
        self.tick()
        assert self._child is not None, "tick has started it"
        self._child.wait(LAST_COPY_TIMEOUT)
        self._report()

    def _report(self) -> None:
        if self._child is None or self._child.stderr is None:
            return
        with self._child.stderr as stream:
            lines = stream.read().decode(errors="replace").strip().splitlines()
        if self._child.returncode:
            say(f"{self._bucket}: not copied: {lines[-1] if lines else self._child.returncode}")
        self._child = None
