"""What goes wrong is one line that says where, what, and the fix: no tool, key, bucket, quota; machines that are taken away."""

import json
import re

import pytest

from launch.launcher import __main__ as launcher
from launch.launcher import staging
from launch.launcher.targets import fleet
from tests.launch.fakes import Reply
from tests.launch.test_targets import CASES, SAID, fakes, words_of

__all__ = ["fakes"]  # a fixture
ABSENT = Reply(
    "tpus describe",
    1,
    err="ERROR: NOT_FOUND: Resource 'projects/p/locations/z/nodes/n' was not found",
    once=True,
)
QUOTA = "ERROR: (gcloud.compute.tpus.tpu-vm.create) RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProject' has been exceeded"


def one_line(capsys) -> str:
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("e5jax: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


TOOL = {
    "ssh": "ssh",
    "tpu-vm": "gcloud",
    "queued": "gcloud",
    "gke-xpk": "xpk",
    "slurm": "sbatch",
    "mpi": "mpirun",
    "sky": "sky",
}


@pytest.mark.parametrize("case", TOOL)
def test_a_tool_that_is_missing_is_named_with_where_it_comes_from(case, fakes, capsys):
    (fakes.folder / TOOL[case]).unlink()
    assert launcher.main(words_of(case)) == 3
    assert re.search(rf"{TOOL[case]} is not on PATH; install .{{10}}", one_line(capsys))


def test_kubectl_is_needed_for_kubernetes(fakes, capsys):
    (fakes.folder / "kubectl").unlink()
    assert launcher.main(words_of("gke")) == 3
    assert (
        "kubectl is not on PATH; install the Kubernetes CLI: gcloud components install kubectl"
        in one_line(capsys)
    )


CAUSES = {
    "no bucket": (
        "gke",
        [
            Reply(
                "buckets describe",
                1,
                err="ERROR: (gcloud.storage.buckets.describe) gs://my-bucket not found: 404.",
            )
        ],
        "gcloud storage buckets create gs://NAME",
    ),
    "no machine in time": (
        "queued",
        [ABSENT, Reply("create", once=True), Reply("queued-resources describe", out="FAILED\n")],
        "e5-mistral-7b is FAILED",
    ),
    "no quota": ("tpu-vm", [ABSENT, Reply("create", 1, err=QUOTA)], "no quota: request some"),
    "no capacity": (
        "tpu-vm",
        [ABSENT, Reply("create", 1, err="There is no more capacity in the zone")],
        "--target=queued waits for some",
    ),
    "no login": (
        "tpu-vm",
        [Reply("tpus describe", 1, err="You do not currently have an active account selected.")],
        "gcloud auth login",
    ),
    "no permission": (
        "queued",
        [Reply("tpus describe", 1, err="PERMISSION_DENIED: no")],
        "request roles/tpu.admin",
    ),
    "no JobSet": (
        "gke",
        [Reply("apply", 1, err='error: no matches for kind "JobSet" in version "jobset.x-k8s.io"')],
        "lacks JobSet",
    ),
    "no host": (
        "ssh",
        [Reply("ssh", 255, err="ssh: connect to host one port 22: No route to host")],
        "cannot reach the host",
    ),
    "no key of the host": (
        "ssh",
        [Reply("ssh", 255, err="Host key verification failed.")],
        "ssh to it once",
    ),
    "no entry": (
        "ssh",
        [Reply("ssh", 255, err="me@two: Permission denied (publickey).")],
        "ssh-copy-id",
    ),
    "no partition": (
        "slurm",
        [Reply("sbatch", 1, err="sbatch: error: invalid partition specified: a100")],
        "sinfo lists them",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_what_a_tool_complains_of_comes_with_the_fix(cause, fakes, monkeypatch, capsys):
    case, replies, fix = CAUSES[cause]
    fakes.answer(*replies)
    monkeypatch.setattr(staging, "here", lambda *_: fakes.home)
    assert (
        launcher.main(
            [*words_of(case), "--python=/usr/bin/python3"] if case == "slurm" else words_of(case)
        )
        == 1
    )
    line = one_line(capsys)
    assert fix in line


KEYS = {
    "no such file": (None, 0o600),
    "other users may read it; chmod 600": ("HF_TOKEN=hf_canary\n", 0o640),
    "line 2 is not NAME=VALUE": ("HF_TOKEN=hf_canary\nhf_canary\n", 0o600),
}


@pytest.mark.parametrize("said", KEYS)
def test_a_key_file_that_cannot_be_used_is_said_and_not_shown(said, fakes, tmp_path, capsys):
    text, mode = KEYS[said]
    (tmp_path / "keys").unlink()
    if text is not None:
        (tmp_path / "keys").write_text(text)
        (tmp_path / "keys").chmod(mode)
    assert launcher.main(words_of("ssh")) == 3
    line = one_line(capsys)
    assert f"--key-file=keys: {said}" in line
    assert "hf_canary" not in line
    assert fakes.calls == []


WRONG = {
    "--target=ssh": "needs hosts; add --hosts=a,b or --host-file=FILE",
    "--target=ssh --hosts=a,a": "one is listed twice",
    "--target=ssh --hosts=a,b --num-processes=3": "--num-processes=3: must be 2, one per host",
    "--target=tpu-vm": "add --accelerator, such as v5litepod-16, and --zone",
    "--target=tpu-vm --zone=z --accelerator=v5litepod-17": "v5litepod comes as 1, 4, 8, 16",
    "--target=tpu-vm --zone=z --accelerator=h100": "must be one of v4-N, v5litepod-N, v5p-N, v6e-N",
    "--target=gke --accelerator=v6e-64 --image=i": "--workdir=gs://BUCKET/",
    "--target=gke --accelerator=v6e-64 --image=i --workdir=gs://b/r --key-file=keys": "kubectl create secret generic",
    "--target=sky --accelerator=H100:8": "--workdir=gs://BUCKET/",
    "--target=slurm --hosts=a": "--hosts: is for --target=ssh, mpi, not --target=slurm",
    "--target=tpu-vm --platform=cuda": "--target=tpu-vm uses TPUs",
    "--profile=fast": "must be one of tpu-latency, tpu-overlap",
    "--profile=tpu-latency --platform=cpu": "is for --platform=tpu, not cpu",
    "--platform=gpu": "must be one of cpu, cuda, tpu",
    "--devices=4": "needs a platform",
    "--num-processes=-1": "must not be negative",
    "--python=/no/such/python": "no such program",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_meant_is_refused_with_the_fix(words, fakes, capsys):
    assert launcher.main(["train", "configs/e5_mistral_7b.py", *words.split()]) == 3
    assert WRONG[words] in one_line(capsys)
    assert fakes.calls == []


def test_a_machine_that_was_taken_away_is_made_anew_and_the_run_goes_on(fakes, capsys):
    lives = "e5-mistral-7b on t-0: pid 7, for 3 h, 0 restarts\n"
    fakes.answer(
        *[Reply("tpus describe", out="READY\n", once=True)] * 2,
        Reply("host status", out=lives, once=True),
        *[Reply("tpus describe", out="PREEMPTED\n", once=True)] * 2,
        Reply("tpus describe", 1, err="NOT_FOUND", once=True),
        Reply("tpus describe", out="READY\n"),
        Reply("host status", out=lives.replace("pid 7", "ended, exit code 0")),
    )
    assert launcher.main(words_of("tpu-vm")) == 0
    calls = [argv for argv, _ in fakes.calls if argv[1] == "compute"]
    verbs = [
        argv[4] if argv[4] != "ssh" else re.search(r"host (\w+)|setup|umask", argv[-4])
        for argv in calls
    ]
    done = [verb if isinstance(verb, str) else verb[1] or verb[0] for verb in verbs if verb]
    begin = ["scp", "umask", "setup", "versions", "detach"]
    made = [
        "describe",
        *begin,
        "describe",
        "status",
        "describe",
        "describe",
        "delete",
        "create",
        "describe",
        "describe",
    ]
    assert [one for one in done if one != "describe"] == [
        one for one in [*made, *begin, "status"] if one != "describe"
    ]
    assert "e5-mistral-7b is PREEMPTED: deletes and recreates it" in capsys.readouterr().err


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_queued_resource_that_came_to_nothing_is_asked_for_anew(state, fakes):
    fakes.answer(
        Reply("tpus describe", out=f"{state}\n", once=True),
        ABSENT,
        Reply("tpus describe", out="ACTIVE\n"),
    )
    assert launcher.main(words_of("queued")) == 0
    verbs = [argv[4] for argv, _ in fakes.calls if argv[1] == "compute"]
    assert (
        verbs.index("describe") < verbs.index("delete") < verbs.index("create") < verbs.index("scp")
    )
    assert next(argv for argv, _ in fakes.calls if argv[4:5] == ["delete"])[5:7] == [
        "e5-mistral-7b",
        "--force",
    ]


def test_when_one_host_does_not_begin_the_others_are_stopped_and_it_is_named(fakes, capsys):
    fakes.answer(Reply("ssh me@two host detach", 3, err="e5jax: the disk is full\n"))
    assert launcher.main(words_of("ssh")) == 1
    line = one_line(capsys)
    assert "me@two: ssh: exit code 3: e5jax: the disk is full" in line
    assert "stopped on one" in line
    stops = [argv for argv, _ in fakes.calls if "host stop" in argv[-1]]
    assert [argv[-2] for argv in stops] == ["one"]


def test_when_workers_do_not_begin_all_are_stopped(fakes, capsys):
    fakes.answer(Reply("host detach", 1, err="worker 3: disk full\n"), *SAID["queued"])
    assert launcher.main(words_of("queued")) == 1
    assert "worker 3: disk full; the processes on other hosts were stopped" in one_line(capsys)
    assert any("host stop" in " ".join(argv) for argv, _ in fakes.calls)


def versions(host: str, **other: str) -> str:
    return f"e5jax-versions {json.dumps({'host': host, **other})}\n"


def test_workers_of_one_machine_with_other_versions_are_named(fakes, capsys):
    said = versions("t-0", jax="0.10.2", python="3.11.7") + versions(
        "t-1", jax="0.10.2", python="3.12.1"
    )
    fakes.answer(Reply("host versions", out=said), *SAID["queued"])
    assert launcher.main(words_of("queued")) == 3
    line = one_line(capsys)
    assert re.search(
        r"python is 3\.11\.7 on .*\(t-0\) and 3\.12\.1 on .*\(t-1\); nothing was started", line
    ), line
    assert not any("host detach" in " ".join(argv) for argv, _ in fakes.calls)


def test_hosts_that_are_alike_pass():
    fleet.compare({"a": versions("a", jax="1"), "b": versions("b", jax="1")})


def test_keys_go_through_stdin_alone(fakes):
    fakes.answer()
    assert launcher.main(words_of("ssh")) == 0
    holding = [(argv, text) for argv, text in fakes.calls if "hf_canary" in text]
    assert len(holding) == 2
    assert all("cat >e5jax/keys/e5-mistral-7b" in argv[-1] for argv, _ in holding)
    assert len(CASES) == 10
