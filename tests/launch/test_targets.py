"""The exact commands of every target and of its failures, with tools that are not the real ones."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from launch.launcher import __main__ as launcher
from launch.launcher import staging
from launch.launcher.targets import cloud
from launch.launcher.templates import templates
from tests.config.test_load import ROOT
from tests.launch.fakes import Fakes, Reply

GOLDEN = Path(__file__).with_name("golden")
COMMIT = "c0ffee0123456789c0ffee0123456789c0ffee01"
E5 = "configs/e5_mistral_7b.py"
TPU = ("--accelerator=v5litepod-16", "--zone=us-west4-a", "--project=my-project")
BUCKET = "--workdir=gs://my-bucket/e5"
CASES = {
    "local": ("--num-processes=2", "--platform=cpu", "--devices=4", "--max-restarts=3"),
    "ssh": (
        "--hosts=one,me@two",
        "--platform=cuda",
        "--key-file=keys",
        "--profile=cuda-latency",
        "--env=A=b c",
    ),
    "tpu-vm": (*TPU, BUCKET, "--spot", "--profile=tpu-latency", "--config.optim.steps=10"),
    "queued": (*TPU, BUCKET, "--slices=2", "--reserved", "--wait=6h", "--key-file=keys"),
    "gke": (
        "--accelerator=v6e-64",
        BUCKET,
        "--slices=2",
        "--image=europe-docker.pkg.dev/p/r/e5jax",
        "--secret=keys",
        "--build",
        "--spot",
    ),
    "gke-xpk": (
        "--accelerator=v5p-64",
        BUCKET,
        "--image=europe-docker.pkg.dev/p/r/e5jax",
        "--cluster=mine",
        "--zone=us-east5-a",
    ),
    "slurm": (
        "--num-processes=4",
        "--gpus=8",
        "--platform=cuda",
        "--partition=a100",
        "--time=12:00:00",
        "--sbatch=--qos=high",
    ),
    "mpi": ("--hosts=one,two", "--platform=cpu", "--mpirun=--report-bindings"),
    "mpi-5": ("--num-processes=2", "--platform=cpu", "--allow-dirty"),
    "sky": ("--accelerator=H100:8", BUCKET, "--num-processes=2", "--spot", "--key-file=keys"),
}
SAID = {
    "mpi-5": [Reply("mpirun --version", out="mpirun (Open MPI) 5.0.5\n")],
    "mpi": [Reply("mpirun --version", out="mpirun (Open MPI) 4.1.4\n")],
    "slurm": [Reply("sbatch", out="4711\n")],
    "tpu-vm": [
        Reply(
            "tpus describe",
            1,
            err="ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: not there",
            once=True,
        ),
        Reply("tpus describe", out="READY\n"),
        Reply("host status", out="e5-mistral-7b on t-0: ended, exit code 0, for 3 h, 0 restarts\n"),
    ],
    "queued": [
        Reply(
            "tpus describe",
            1,
            err="ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: not there",
            once=True,
        ),
        Reply("tpus describe", out="WAITING_FOR_RESOURCES\n", once=True),
        Reply("tpus describe", out="ACTIVE\n"),
    ],
}


@pytest.fixture
def fakes(tmp_path, monkeypatch) -> Fakes:
    made = Fakes(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(made.folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(staging, "commit", lambda *_, **__: COMMIT)
    monkeypatch.setattr(
        staging, "archive", lambda commit, folder: _touch(folder / f"e5jax-{commit[:12]}.tar")
    )
    monkeypatch.setattr(staging, "ROOT", tmp_path)
    monkeypatch.setattr(cloud, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(launcher, "LAUNCHED", tmp_path / "launched")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text("HF_TOKEN=hf_canary\n")
    (tmp_path / "keys").chmod(0o600)
    return made


def _touch(path: Path) -> Path:
    path.touch()
    return path


def words_of(case: str) -> list[str]:
    return ["train", E5, f"--target={re.sub('-(xpk|5)$', '', case)}", *CASES[case]]


def plain(text: str, tmp_path: Path) -> str:
    """Without what differs from place to place."""
    text = (
        text.replace(str(tmp_path), "/here")
        .replace(COMMIT, "COMMIT")
        .replace(COMMIT[:12], "COMMIT")
    )
    return re.sub(
        r"COMMIT\.\d+", "COMMIT.PID", re.sub(r"/[\w/]+/e5jax-COMMIT.tar", "e5jax-COMMIT.tar", text)
    )


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_prints_the_commands_for_every_host_and_does_nothing(
    case, fakes, tmp_path, capsys
):
    before = sorted(tmp_path.rglob("*"))
    assert launcher.main([*words_of(case), "--dry-run"]) == 0
    assert fakes.calls == []
    assert sorted(tmp_path.rglob("*")) == before
    printed = plain(capsys.readouterr().out, tmp_path)
    assert "hf_canary" not in printed
    golden = GOLDEN / f"{case}.txt"
    assert printed == golden.read_text(), f"if that is meant: write it into {golden}"


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in ("local", "mpi", "mpi-5", "slurm", "sky")]
)
def test_what_a_dry_run_prints_is_what_is_run(case, fakes, tmp_path, capsys):
    fakes.answer(*SAID.get(case, ()))
    assert launcher.main(words_of(case)) == 0
    run = [plain(shlex.join(argv), tmp_path) for argv, _ in fakes.calls]
    capsys.readouterr()
    launcher.main([*words_of(case), "--dry-run"])
    lines = plain(capsys.readouterr().out, tmp_path).splitlines()
    shown = [
        line.partition("$ ")[2].split(" < ")[0].split(" <<'END'")[0]
        for line in lines
        if re.match(r"[\w.@-]+\$ ", line)
    ]
    assert set(shown) <= set(run)
    assert [
        line
        for line in run
        if line not in shown and " describe " not in line and "host status" not in line
    ] == []
    assert all("hf_canary" not in " ".join(argv) for argv, _ in fakes.calls)


def test_templates_are_as_the_launcher_would_write_them():
    for name, text in templates().items():
        path = ROOT / "launch" / name
        assert path.read_text() == text, f"{path}: python -m launch.launcher.templates"
        if path.suffix == ".sbatch":
            assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
        else:
            assert yaml.safe_load(text)
