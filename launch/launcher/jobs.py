"""From what the user asks for to what each machine is given."""

from pathlib import Path

from launch.launcher.job import Job
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step

BUCKET = "gs://"
HERE = ("--workdir=", "--output=")


def job_of(request: Request, python: str, workdir: str = "", **where: object) -> Job:
    """The job of a host; `where` says which processes it has. `workdir` is the run's directory as that host calls it."""
    asked = request.workdir
    bucket = asked if asked.startswith(BUCKET) else ""
    workdir = workdir or folder_of(request)
    words = tuple(_moved(word, asked, workdir) for word in request.words)
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
    return Job(**{**values, **where})


def check_bucket(request: Request, shell: Shell) -> None:
    """Asks for the bucket of the run before anything is paid for. Raises RunError when it is not there."""
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
    """The run's directory on disk: what is not a checkpoint is written there first, also when the run belongs to a bucket."""
    return f"runs/{request.run_name}" if request.workdir.startswith(BUCKET) else request.workdir


def outside(request: Request) -> str:
    """The same, seen from the code of a commit: beside it, so that another commit goes on with it."""
    folder = folder_of(request)
    return folder if Path(folder).is_absolute() or folder.startswith("~") else f"../../{folder}"


def _moved(word: str, asked: str, workdir: str) -> str:
    return next((f"{name}{workdir}" for name in HERE if word == f"{name}{asked}"), word)
