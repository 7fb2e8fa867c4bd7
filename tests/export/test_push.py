"""`--push-to-hub` against a hub on this machine: the files arrive whole, the token is nowhere else, failures keep the folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e5jax.errors import ConfigError
from e5jax.export.push import check_name
from e5jax.workdir.outputs import LIST
from tests.export import hub, small

CODE = """
import sys
from pathlib import Path
from e5jax.export.push import push
print(push(Path(sys.argv[1]), sys.argv[2], private=True))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[hub.Hub]:
    with hub.running() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return small.base(tmp_path_factory.mktemp("push") / "model", small.spec())


def push(folder: Path, server: hub.Hub, token: str | None) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its endpoint when it is imported."""
    own = {
        "HF_ENDPOINT": server.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder.parent / "home"),
    }
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"} | own
    if token:
        environment["HF_TOKEN"] = token
    command = [sys.executable, "-c", CODE, str(folder), "somebody/model"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_every_file_arrives_as_it_is_in_one_commit(server, folder):
    done = push(folder, server, server.token)
    assert done.returncode == 0, done.stderr
    written = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    del written[LIST]  # it says of this machine's folder what may be replaced
    assert len(written) > 8
    assert server.files == written
    assert done.stdout == f"{server.address}/somebody/model\n"
    assert server.commits == ["Export of e5jax"]
    (created,) = server.created
    assert (created["name"], created["organization"]) == ("model", "somebody")
    assert (
        created.get("visibility") == "private" or created["private"]
    )  # from huggingface_hub 2 on, and before
    assert not any(server.token.encode() in content for content in server.files.values())
    assert server.token not in done.stdout + done.stderr


@pytest.mark.parametrize("token", ["wrong", None])
def test_a_refusal_says_what_to_do_and_the_folder_stays(server, folder, token):
    before = dict(server.files)
    done = push(folder, server, token)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"e5jax.errors.RunError: {folder} is written, and could not be put on the hub as somebody/model: "
    )
    assert (
        f"set HF_TOKEN to a token that may write, then `hf upload somebody/model {folder}`" in last
    )
    assert server.files == before
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["model", "a/b/c", "./model", "owner/"])
def test_what_is_no_name_of_a_repository_is_refused_before_anything_is_done(name):
    with pytest.raises(ConfigError, match="must be owner/name"):
        check_name(name)
