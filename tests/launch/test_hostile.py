"""Values that want to be commands: none is run, and what may pass arrives as it was."""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from e5jax.errors import ConfigError
from launch.launcher import __main__ as launcher
from launch.launcher import staging
from launch.launcher.command import read
from launch.launcher.job import Job, parse_job
from launch.launcher.request import Request, check
from launch.launcher.targets import cloud, gke, sky
from tests.launch.fakes import Fakes, Reply

COUNT = 500
COMMIT = "c0ffee0123456789c0ffee0123456789c0ffee01"
DOES = "touch CANARY"
PARTS = (
    *(
        f"$({DOES})",
        f"`{DOES}`",
        f";{DOES};",
        f"&& {DOES}",
        f"|{DOES}",
        f"\n{DOES}\n",
        f"'; {DOES}; '",
        f'"; {DOES}; "',
    ),
    *(
        f"\\'; {DOES} #",
        f"${{IFS}}{DOES}",
        f"-oProxyCommand={DOES}",
        "$HOME",
        "$(HF_TOKEN)",
        "~root",
        "*",
        "?",
        "[a-z]",
        "{a,b}",
        "!!",
    ),
    *(
        "#",
        "-rf",
        "--",
        ">CANARY",
        "<<END\nEND\n",
        "END",
        "%s",
        "\\",
        "\\n",
        "\t",
        " ",
        "'",
        '"',
        "\r",
        "é",
        "\u202e",
        "\U0001f600",
    ),
    *("x", "=", ":", "- a", "{{x}}", "&x", "*x", "!!python", "\x7f", "\u2028"),
)


def hostile(seed: int = 0) -> list[str]:
    """All different, none empty."""
    chosen, made = random.Random(seed), set()
    while len(made) < COUNT:
        made.add("".join(chosen.choices(PARTS, k=chosen.randint(1, 5))))
    return sorted(made)


VALUES = hostile()
OVERRIDES = [f"--config.eval.tasks={value}" for value in VALUES]


@pytest.fixture
def fakes(tmp_path, monkeypatch) -> Fakes:
    """What is sent to machines is run here, by a real shell; the program there notes its arguments."""
    made = Fakes(tmp_path / "bin")
    made.run_remotes()
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable} -IS\nimport json, sys\n"
        f"with open({str(tmp_path / 'arguments.jsonl')!r}, 'a') as file:\n    file.write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(made.folder))
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setattr(staging, "commit", lambda *_, **__: COMMIT)
    monkeypatch.setattr(
        staging, "archive", lambda commit, folder: _tar(folder / f"e5jax-{commit[:12]}.tar")
    )
    monkeypatch.setattr(
        staging, "here", lambda request, _: made.home / staging.code(request.root, COMMIT)
    )
    monkeypatch.setattr(cloud, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(launcher, "LAUNCHED", tmp_path / "launched")
    monkeypatch.chdir(made.home)
    (made.home / staging.code("e5jax", COMMIT)).mkdir(parents=True)
    made.answer(Reply("tpus describe", out="READY\n"), Reply("squeue"), Reply("versions"))
    return made


def _tar(path: Path) -> Path:
    path.touch()
    return path


def arrived(tmp_path: Path) -> list[str]:
    """The overrides that a program elsewhere was given."""
    lines = (tmp_path / "arguments.jsonl").read_text().splitlines()
    return [
        word
        for line in lines
        for word in json.loads(line)
        if word.startswith("--config.eval.tasks=")
    ]


def no_canary(tmp_path: Path) -> None:
    assert list(tmp_path.rglob("*CANARY*")) == []


WHERE = {
    "ssh": ("--hosts=one",),
    "tpu-vm": ("--accelerator=v5litepod-16", "--zone=us-west4-a"),
    "slurm": (),
}


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("target", WHERE)
def test_overrides_arrive_as_they_are_and_run_nothing(target, tmp_path):
    words = [
        "train",
        f"--target={target}",
        "--platform=tpu" if target == "tpu-vm" else "--platform=cpu",
        *WHERE[target],
    ]
    assert launcher.main([*words, f"--python={tmp_path / 'python'}", *OVERRIDES]) == 0
    assert arrived(tmp_path) == OVERRIDES
    no_canary(tmp_path)


def request_of(*words: str) -> Request:
    return replace(read("train", words), commit=COMMIT)


def test_descriptions_hold_them_as_they_are():
    where = ("--accelerator=v6e-64", "--workdir=gs://b/r", "--image=i")
    made = yaml.safe_load(gke.to_yaml(gke.jobset(request_of("--target=gke", *where, *OVERRIDES))))
    (container,) = made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ]
    assert all(
        "$" not in word.replace("$$", "") for word in container["command"]
    )  # which Kubernetes would replace
    assert [
        word.replace("$$", "$") for word in container["command"] if word.startswith("--config.eval")
    ] == OVERRIDES
    recipe = sky.task(
        request_of("--target=sky", "--accelerator=H100:8", "--workdir=gs://b/r", *OVERRIDES),
        Path("/code"),
        [],
    )
    assert yaml.safe_load(sky.to_yaml(recipe)) == recipe


def test_xpk_which_writes_a_script_is_given_plain_words_only():
    where = (
        "--target=gke",
        "--accelerator=v6e-64",
        "--workdir=gs://b/r",
        "--image=i",
        "--cluster=c",
    )
    for override in OVERRIDES:
        if not gke.PLAIN.fullmatch(override):
            with pytest.raises(ConfigError, match="xpk writes this into a shell script"):
                gke._check(request_of(*where, override))
    assert sum(gke.PLAIN.fullmatch(override) is None for override in OVERRIDES) > 450


def test_a_job_is_read_as_it_was_written():
    job = Job(
        "run",
        "~/runs/x",
        tuple(OVERRIDES),
        env=tuple(f"A={value}" for value in VALUES),
        key_file="a b",
        restarts=3,
    )
    assert parse_job(job.arguments()) == job


NAMES = {
    "run_name": (), "workdir": (), "root": (), "python": (), "key_file": (), "topology": (),
    "hosts": ("--target=ssh",), "host_file": ("--target=ssh",), "ssh_config": ("--target=ssh",), "coordinator": ("--target=ssh",),
    "tpu_name": ("--target=tpu-vm",), "accelerator": ("--target=tpu-vm",), "runtime": ("--target=tpu-vm",),
    "zone": ("--target=tpu-vm",), "project": ("--target=tpu-vm",), "wait": ("--target=queued",),
    "image": ("--target=gke",), "namespace": ("--target=gke",), "secret": ("--target=gke",),
    "service_account": ("--target=gke",), "cluster": ("--target=gke",),
    "partition": ("--target=slurm",), "account": ("--target=slurm",), "time": ("--target=slurm",), "sbatch": ("--target=slurm",),
    "mpirun": ("--target=mpi",),
}  # fmt: skip
HARMLESS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:@/=+,~\\")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_could_be_commands_are_refused(name):
    base = read("train", NAMES[name])
    named = f"--{name.replace('_', '-')}"

    def said(value: str) -> str:
        """Why it is refused, if it is."""
        try:
            check(
                replace(
                    base, **{name: (value,) if isinstance(getattr(base, name), tuple) else value}
                )
            )
        except ConfigError as error:
            return str(error)
        return ""

    passed = [value for value in VALUES if not said(value)]
    assert all(named in said(value) for value in VALUES if value not in passed)
    assert all(set(value) <= HARMLESS and not value.startswith("-o") for value in passed), passed
    assert len(passed) < 30


def test_a_run_is_never_named_like_an_option_or_another_place():
    for name in ("-x", "--help", "../x", "/x", "x/y", "x..", "X", "", "x" * 41):
        with pytest.raises(ConfigError, match="--run-name"):
            check(replace(read("train", ()), run_name=name or " "))
    with pytest.raises(ConfigError, match=r"must not contain \.\."):
        read("train", ("--workdir=runs/../../etc",))
