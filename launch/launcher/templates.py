"""Writes `launch/slurm`, `launch/gke` and `launch/sky`: submissions of the paper's run.

Run as `python -m launch.launcher.templates`; a test checks that the files are up to date.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from launch.launcher.command import read
from launch.launcher.manifests import to_yaml
from launch.launcher.request import Request
from launch.launcher.staging import ROOT
from launch.launcher.targets import gke, sky, slurm

CONFIG = "configs/e5_mistral_7b.py"
CODE = Path("/shared/e5jax/code/COMMIT")
NOTE = (
    "# {command}\n"
    "# submits this; with --dry-run it prints the same with your names, and the other commands.\n"
)


def templates() -> Mapping[str, str]:
    """Contents by path below `launch/`."""
    bucket = "--workdir=gs://BUCKET/e5"
    files = {}
    command, request = _request(
        "--target=slurm",
        "--num-processes=4",
        "--gpus=8",
        "--platform=cuda",
        "--time=24:00:00",
        "--workdir=/shared/e5",
    )
    script = slurm.script(request, CODE)
    first, rest = script.split("\n", 1)
    options = "".join(f"#SBATCH {word}\n" for word in slurm.sbatch(request)[2:])
    files["slurm/e5_mistral_7b.sbatch"] = f"{first}\n{NOTE.format(command=command)}{options}{rest}"
    image = "--image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/e5jax"
    command, request = _request(
        "--target=gke", "--accelerator=v5litepod-16", bucket, image, "--secret=e5jax-keys"
    )
    files["gke/e5_mistral_7b.yaml"] = NOTE.format(command=command) + to_yaml(gke.jobset(request))
    command, request = _request(
        "--target=sky", "--accelerator=H100:8", bucket, "--num-processes=2", "--spot"
    )
    files["sky/e5_mistral_7b.yaml"] = NOTE.format(command=command) + to_yaml(
        sky.task(request, CODE, ["HF_TOKEN"])
    )
    return files


def _request(*words: str) -> tuple[str, Request]:
    return " ".join(["launch/train.sh", CONFIG, *words]), replace(
        read("train", [CONFIG, *words]), commit="COMMIT"
    )


def main() -> None:
    """Writes all templates."""
    for name, text in templates().items():
        path = ROOT / "launch" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
