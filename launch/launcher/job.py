"""A machine's part of a run: made from a request, written on a command line and read from it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step

BUCKET = "gs://"
DIRECTORY_OPTIONS = ("--workdir=", "--output=")


class Job(NamedTuple):
    """Processes `first` … `first + here - 1` of `processes`, or the one that `rank` determines."""

    run: str
    workdir: str
    words: tuple[str, ...]  # arguments of e5jax
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
    bucket: str = ""  # gs://…, where `workdir` is copied to
    env: tuple[str, ...] = ()  # NAME=VALUE

    def arguments(self) -> list[str]:
        """Arguments of `python -m launch.launcher host run`, without defaults."""
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
    """Reads the arguments of `Job.arguments`."""
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


def job_of(request: Request, python: str, workdir: str = "", **processes: object) -> Job:
    """The job of a host: `processes` are fields of Job, `workdir` the directory on the host."""
    bucket = request.workdir if request.workdir.startswith(BUCKET) else ""
    workdir = workdir or folder_of(request)
    words = tuple(_moved(word, request.workdir, workdir) for word in request.words)
    if bucket and request.stage == "run":
        words = (*words, f"--config.checkpoint.folder={bucket.rstrip('/')}/checkpoints")
    values = {
        "run": request.run_name,
        "workdir": workdir,
        "words": words,
        "python": python,
        "platform": request.platform,
        "profile": request.profile,
        "devices": request.devices,
        "restarts": request.restarts,
        "env": request.env,
        "bucket": bucket,
    }
    return Job(**{**values, **processes})


def check_bucket(request: Request, shell: Shell) -> None:
    """Checks that the run's bucket exists, before anything costs money. Raises RunError."""
    if request.workdir.startswith(BUCKET):
        name = request.workdir.removeprefix(BUCKET).split("/")[0]
        shell.must(
            Step(
                "here",
                (
                    "gcloud",
                    "storage",
                    "buckets",
                    "describe",
                    f"{BUCKET}{name}",
                    "--format=value(name)",
                ),
            )
        )


def folder_of(request: Request) -> str:
    """The run's directory on disk; with a bucket, all but checkpoints is written there first."""
    return f"runs/{request.run_name}" if request.workdir.startswith(BUCKET) else request.workdir


def outside(request: Request) -> str:
    """The same, relative to the staged code of a commit, so that another commit can resume."""
    folder = folder_of(request)
    return folder if Path(folder).is_absolute() or folder.startswith("~") else f"../../{folder}"


def _moved(word: str, requested: str, workdir: str) -> str:
    options = (name for name in DIRECTORY_OPTIONS if word == f"{name}{requested}")
    return next((f"{name}{workdir}" for name in options), word)
