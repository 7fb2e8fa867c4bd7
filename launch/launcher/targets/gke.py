"""Kubernetes with TPUs: a JobSet of one job a slice and one pod a host; or the same through xpk, with --cluster."""

import re
import shlex
import tempfile
from pathlib import Path

from e5jax.errors import CONFIG, DONE, ERROR, USAGE, ConfigError
from launch.launcher import staging
from launch.launcher.accelerators import ON_HOST, slice_of
from launch.launcher.jobs import BUCKET, check_bucket, job_of
from launch.launcher.manifests import to_yaml
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step

SAVING = 600  # seconds between SIGTERM and SIGKILL
NEVER_AGAIN = [ERROR, USAGE, CONFIG]
PLAIN = re.compile(r"[\w.,:/=+@%-]*")  # what xpk, which writes a shell script, may be given
CODE = "/e5jax"  # in the image
LABEL = "jobset.sigs.k8s.io/jobset-name"


def start(request: Request, shell: Shell) -> int:
    """Builds the image if asked to, and submits."""
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
            "--target=gke: add --accelerator, such as v5litepod-16, and --image, such as REGION-docker.pkg.dev/P/R/e5jax"
        )
    if not request.workdir.startswith(BUCKET):
        raise ConfigError(
            f"--workdir={request.workdir}: pods have no disk that stays; --workdir=gs://BUCKET/{request.run_name} does"
        )
    if request.key_file:
        raise ConfigError(
            f"--key-file: in Kubernetes keys are a secret: kubectl create secret generic NAME --from-env-file={request.key_file}, "
            "then --secret=NAME"
        )
    slice_of(request.accelerator)
    if request.cluster:
        if wrong := [word for word in (*request.words, *request.env) if not PLAIN.fullmatch(word)]:
            raise ConfigError(
                f"{wrong[0]}: xpk puts this into a shell script; leave --cluster out, or write it into the config"
            )
        if request.secret:
            raise ConfigError("--secret: xpk knows no secrets of Kubernetes; leave --cluster out")


def image(request: Request) -> str:
    """The image of the commit."""
    return f"{request.image}:{request.commit[: staging.SHORT]}"


def _build(request: Request, shell: Shell) -> None:
    """The image is made of the commit's files, whatever lies in the working tree."""
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
    """What a container does. Kubernetes starts it again itself, so its own supervisor does not."""
    job = job_of(request, "python", rank="tpu", platform="tpu", restarts=0)
    return ["python", "-m", "launch.launcher", "host", "run", *job.arguments()]


def jobset(request: Request) -> dict:
    """The description. All pods start again together; exit codes that forbid it end the whole set."""
    asked = slice_of(request.accelerator)
    chips = min(asked.chips, ON_HOST)
    container = {
        "name": "e5jax",
        "image": image(request),
        # $(NAME) would be replaced by a variable's value, a key's perhaps.
        "command": [word.replace("$", "$$") for word in command(request)],
        "resources": {"limits": {"google.com/tpu": chips}},
        "ports": [{"containerPort": 8471}, {"containerPort": 8476}, {"containerPort": 8080}],
        "securityContext": {"privileged": True},
    }
    if request.secret:
        container["envFrom"] = [{"secretRef": {"name": request.secret}}]
    pod: dict = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": SAVING,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": asked.generation.label,
            "cloud.google.com/gke-tpu-topology": asked.shape,
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
        "onExitCodes": {"containerName": "e5jax", "operator": "In", "values": NEVER_AGAIN},
    }
    job = {
        "completionMode": "Indexed",
        "parallelism": asked.hosts,
        "completions": asked.hosts,
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
    """A command for the namespace, of the cluster that kubectl is set to."""
    return ("kubectl", verb, *words, f"--namespace={request.namespace}")


def xpk(request: Request, verb: str = "create") -> tuple[str, ...]:
    """The same workload, described by xpk."""
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
    """Status, logs or stop. To stop is to delete the set: its pods save, and the run's directory has all."""
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
