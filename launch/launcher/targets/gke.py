"""Kubernetes with TPUs: a JobSet with a job per slice and a pod per host, or xpk (--cluster)."""

import re
import shlex
import tempfile
from pathlib import Path

from e5jax.errors import CONFIG, DONE, ERROR, USAGE, ConfigError
from launch.launcher import staging
from launch.launcher.accelerators import CHIPS_PER_HOST, slice_of
from launch.launcher.job import BUCKET, check_bucket, job_of
from launch.launcher.manifests import to_yaml
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step

GRACE = 600  # seconds between SIGTERM and SIGKILL
FINAL_CODES = [ERROR, USAGE, CONFIG]  # exit codes that forbid a restart
PLAIN = re.compile(r"[\w.,:/=+@%-]*")  # safe in the shell script that xpk writes
CODE = "/e5jax"  # in the image
LABEL = "jobset.sigs.k8s.io/jobset-name"


def start(request: Request, shell: Shell) -> int:
    """Builds the image with --build and submits the run."""
    _check(request)
    check_bucket(request, shell)
    if request.build:
        _build(request, shell)
    if request.cluster:
        shell.must(Step("here", xpk(request)))
    else:
        shell.must(
            Step("here", kubectl(request, "apply", "--filename=-"), to_yaml(jobset(request)))
        )
    if not shell.dry:
        print(f"{request.run_name}: submitted, image {image(request)}", flush=True)
    return DONE


def _check(request: Request) -> None:
    if not request.accelerator or not request.image:
        raise ConfigError(
            "--target=gke: add --accelerator, such as v5litepod-16, and --image, such as "
            "REGION-docker.pkg.dev/P/R/e5jax"
        )
    if not request.workdir.startswith(BUCKET):
        raise ConfigError(
            f"--workdir={request.workdir}: pods have no persistent disk; use "
            f"--workdir=gs://BUCKET/{request.run_name}"
        )
    if request.key_file:
        raise ConfigError(
            "--key-file: Kubernetes stores keys in a secret: kubectl create secret generic NAME "
            f"--from-env-file={request.key_file}, then add --secret=NAME"
        )
    slice_of(request.accelerator)
    if request.cluster:
        if wrong := [word for word in (*request.words, *request.env) if not PLAIN.fullmatch(word)]:
            raise ConfigError(
                f"{wrong[0]}: xpk writes this into a shell script; omit --cluster, or set it in "
                "the config"
            )
        if request.secret:
            raise ConfigError("--secret: xpk does not support Kubernetes secrets; omit --cluster")


def image(request: Request) -> str:
    """Name of the commit's image."""
    return f"{request.image}:{request.commit[: staging.SHORT]}"


def _build(request: Request, shell: Shell) -> None:
    """Builds and pushes the image from the commit's files, not from the working tree."""
    with tempfile.TemporaryDirectory() as folder:
        tar = Path("e5jax.tar") if shell.dry else staging.archive(request.commit, Path(folder))
        words = (
            "docker",
            "build",
            "--file=launch/Containerfile",
            "--build-arg=PLATFORM=tpu",
            f"--tag={image(request)}",
            "-",
        )
        shell.must(Step("here", words, tar))
    shell.must(Step("here", ("docker", "push", image(request))))


def command(request: Request) -> list[str]:
    """The command of a container. Kubernetes restarts it, so its own supervisor does not."""
    job = job_of(request, "python", rank="tpu", platform="tpu", restarts=0)
    return ["python", "-m", "launch.launcher", "host", "run", *job.arguments()]


def jobset(request: Request) -> dict:
    """The JobSet. All pods restart together; an exit code that forbids a restart ends the set."""
    requested = slice_of(request.accelerator)
    chips = min(requested.chips, CHIPS_PER_HOST)
    container = {
        "name": "e5jax",
        "image": image(request),
        # Kubernetes would replace $(NAME) by the value of a variable, perhaps a key.
        "command": [word.replace("$", "$$") for word in command(request)],
        "resources": {"limits": {"google.com/tpu": chips}},
        "ports": [{"containerPort": 8471}, {"containerPort": 8476}, {"containerPort": 8080}],
        "securityContext": {"privileged": True},
    }
    if request.secret:
        container["envFrom"] = [{"secretRef": {"name": request.secret}}]
    pod: dict = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": requested.generation.label,
            "cloud.google.com/gke-tpu-topology": requested.shape,
            **({"cloud.google.com/gke-spot": "true"} if request.spot else {}),
        },
        "containers": [container],
    }
    if request.spot:
        pod["tolerations"] = [
            {
                "key": "cloud.google.com/gke-spot",
                "operator": "Equal",
                "value": "true",
                "effect": "NoSchedule",
            }
        ]
    if request.service_account:
        pod["serviceAccountName"] = request.service_account
    stops = {
        "action": "FailJob",
        "onExitCodes": {"containerName": "e5jax", "operator": "In", "values": FINAL_CODES},
    }
    job = {
        "completionMode": "Indexed",
        "parallelism": requested.hosts,
        "completions": requested.hosts,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [stops]},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": request.run_name,
            "namespace": request.namespace,
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
            },
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": request.restarts,
                "rules": [
                    {
                        "name": "no",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": "slice", "replicas": request.slices, "template": {"spec": job}}
            ],
        },
    }


def kubectl(request: Request, verb: str, *words: str) -> tuple[str, ...]:
    """A kubectl command in the run's namespace."""
    return ("kubectl", verb, *words, f"--namespace={request.namespace}")


def xpk(request: Request, verb: str = "create") -> tuple[str, ...]:
    """An xpk command for the same workload."""
    where = [
        f"--{name}={value}"
        for name, value in (("zone", request.zone), ("project", request.project))
        if value
    ]
    words = (
        "xpk",
        "workload",
        verb,
        f"--cluster={request.cluster}",
        f"--workload={request.run_name}",
        *where,
    )
    if verb != "create":
        return words
    return (
        *words,
        f"--tpu-type={request.accelerator}",
        f"--num-slices={request.slices}",
        f"--docker-image={image(request)}",
        f"--max-restarts={request.restarts}",
        f"--command={shlex.join(['cd', CODE])} && {shlex.join(command(request))}",
    )


def act(request: Request, shell: Shell, action: str, follow: bool) -> int:
    """Status, logs or stop. `stop` deletes the JobSet; its pods save first."""
    name = request.run_name
    if action == "logs":
        words = [
            f"--selector={LABEL}={name}",
            "--prefix",
            "--tail=50",
            "--max-log-requests=1024",
            *(["--follow"] if follow else []),
        ]
        return shell.stream(Step("here", kubectl(request, "logs", *words)))
    if action == "stop":
        words = (
            xpk(request, "delete")
            if request.cluster
            else kubectl(request, "delete", "jobset", name)
        )
        return shell.stream(Step("here", words))
    code = shell.stream(Step("here", kubectl(request, "get", "jobset", name)))
    return code or shell.stream(
        Step("here", kubectl(request, "get", "pods", f"--selector={LABEL}={name}", "--output=wide"))
    )
