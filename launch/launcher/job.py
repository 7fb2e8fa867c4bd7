"""A machine's part of a run, as it is written on a command line and read from there."""

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Job(NamedTuple):
    """A machine's part of a run: processes `first` … `first + here - 1` of `processes`, or the one that `rank` says."""

    run: str
    workdir: str
    words: tuple[str, ...]  # of e5jax
    python: str = sys.executable
    platform: str = ""
    profile: str = ""
    devices: int = 0
    processes: int = 1
    first: int = 0
    here: int = 1
    coordinator: str = ""
    rank: str = ""
    restarts: int = 0
    key_file: str = ""
    bucket: str = ""  # gs://…, where what is in `workdir` is kept
    env: tuple[str, ...] = ()  # NAME=VALUE

    def arguments(self) -> list[str]:
        """Of `python -m launch.launcher host start`; what is as usual is left out."""
        changed = {
            name: value
            for name, value in self._asdict().items()
            if value != self._field_defaults.get(name)
        }
        changed.pop("words")
        env = [f"--env={pair}" for pair in changed.pop("env", ())]
        return [
            *(f"--{name.replace('_', '-')}={value}" for name, value in changed.items()),
            *env,
            "--",
            *self.words,
        ]


def parse_job(arguments: Sequence[str]) -> Job:
    """The inverse of `Job.arguments`."""
    split = arguments.index("--")
    parser = argparse.ArgumentParser(prog="launch host", allow_abbrev=False)
    for name, kind in Job.__annotations__.items():
        if name not in ("words", "env"):
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                type=int if kind is int else str,
                default=Job._field_defaults.get(name),
            )
    parser.add_argument("--env", action="append", default=[])
    values = vars(parser.parse_args(arguments[:split]))
    return Job(**{**values, "env": tuple(values["env"]), "words": tuple(arguments[split + 1 :])})
