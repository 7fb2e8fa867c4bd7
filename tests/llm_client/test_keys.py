"""Secrets: where they may come from, where they may go, and that they are nowhere else."""

import asyncio
import contextlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e5jax.errors import ConfigError
from e5jax.llm_client.config import Budget, Endpoint, LanguageModel
from e5jax.llm_client.keys import Secrets, base_url, check_endpoint
from e5jax.llm_client.request import Reply, Stop
from e5jax.llm_client.session import open_session
from examples.demo_endpoint.server import Demo, serve
from tests.config.test_load import ROOT
from tests.llm_client.asking import endpoint, request

CANARY, HEADER = "sk-canary-7f3a9e51c0d2b846", "header-canary-5b1e8d20"
ASKING = """
import asyncio, json, logging, sys
from pathlib import Path
from e5jax.llm_client.config import Budget
from e5jax.llm_client.session import open_session
from tests.llm_client.asking import endpoint, request
logging.basicConfig(level=logging.DEBUG)
target = endpoint(sys.argv[1], headers=("X-Team: $E5JAX_TEST_HEADER",), tries=2)
print(target)

async def main():
    asyncio.get_running_loop().set_debug(True)
    async with open_session(target, Budget(), Path(sys.argv[2]), 0) as session:
        print(session, vars(session))
        for name in ("plain", "400", "500", "reset", "html", "error-in-200", "401"):
            try:
                print(await session.complete(request(name)))
            except Exception as error:
                import traceback
                print(repr(error), error, error.__cause__, error.__context__)
                traceback.print_exception(error)
        print(json.dumps(session.totals()))
        print(Path("/proc/self/cmdline").read_bytes())

asyncio.run(main())
raise RuntimeError("the end, with its traceback")
"""


@contextlib.asynccontextmanager
async def asked(folder: Path, demo: Demo, **changed: object):
    async with (
        serve(demo) as (url, _),
        open_session(endpoint(url, **changed), Budget(), folder / "journal.jsonl", 0) as session,
    ):
        yield session


def test_a_key_is_in_no_output_file_log_error_or_command_line_even_when_the_endpoint_sends_it_back(
    tmp_path,
):
    def fault(body: dict, _: int) -> str | None:
        name = body["messages"][0]["content"].partition(":")[0]
        return None if name == "plain" else name

    async def run() -> tuple[subprocess.CompletedProcess, int]:
        async with serve(Demo(key=CANARY, choose=fault)) as (url, server):
            environment = {
                **os.environ,
                "E5JAX_TEST_KEY": CANARY,
                "E5JAX_TEST_HEADER": HEADER,
                "OPENAI_LOG": "debug",
            }
            command = [
                sys.executable,
                "-X",
                "dev",
                "-W",
                "ignore",
                "-c",
                ASKING,
                url,
                str(tmp_path / "journal.jsonl"),
            ]
            process = await asyncio.to_thread(
                subprocess.run,
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                check=False,
                timeout=100,
            )
            return process, server.received["401"]

    process, refused = asyncio.run(run())
    said = process.stdout + process.stderr
    assert refused == 1  # it did send the key back: the demo endpoint repeats it in every error
    assert b"the key was ***" in said
    assert b"HTTP 401" in said
    assert b"Reply(" in said
    assert b"DEBUG" in said
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"bad-request" in written
    for secret in (CANARY, HEADER):
        assert secret.encode() not in said
        assert secret.encode() not in written


def test_a_reply_that_holds_the_key_is_masked(tmp_path, monkeypatch):
    monkeypatch.setenv("E5JAX_TEST_KEY", CANARY)

    async def run():
        async with asked(tmp_path, Demo(choose=lambda *_: "echo")) as session:
            return await session.complete(request(0, f"what is {CANARY}?"))

    reply = asyncio.run(run())
    assert isinstance(reply, Reply)
    assert "what is ***?" in reply.text
    assert CANARY.encode() not in (tmp_path / "journal.jsonl").read_bytes()


def test_a_key_that_is_wrong_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("E5JAX_TEST_KEY", "another-key-than-that")

    async def run():
        async with asked(tmp_path, Demo(key=CANARY)) as session:
            return await session.complete(request(0))

    with pytest.raises(Stop, match=r"key-refused: HTTP 401: .* the key was \*\*\*"):
        asyncio.run(run())


def test_a_key_comes_from_a_file_that_only_its_owner_reads(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    assert Secrets(Endpoint(key_file=str(path))).key == CANARY
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Secrets(Endpoint(key_file=str(path)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key_variable": "E5JAX_NO_SUCH_KEY"}, "E5JAX_NO_SUCH_KEY holds no key"),
        ({"key_file": "/nowhere/key"}, "no such file"),
        ({"headers": ("no colon",), "base_url": "https://example.org"}, "not `Name: value`"),
        (
            {"headers": ("X-A: $E5JAX_NO_SUCH",), "base_url": "https://example.org"},
            "E5JAX_NO_SUCH is not set",
        ),
    ],
)
def test_what_is_wrong_with_a_secret_is_said(changed, said, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match=said):
        Secrets(Endpoint(**changed))


@pytest.mark.parametrize(
    ("address", "fine"),
    [
        ("https://example.org/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://example.org/v1", False),
        ("http://10.0.0.5:8000/v1", False),
        ("https://169.254.169.254/v1", False),
        ("https://user:word@example.org/v1", False),
        ("ftp://example.org", False),
        ("example.org/v1", False),
    ],
)
def test_addresses_that_must_not_get_a_key_are_refused(address, fine):
    if fine:
        assert base_url(Endpoint(base_url=address)) == address
    else:
        with pytest.raises(ConfigError):
            base_url(Endpoint(base_url=address))
    assert (
        base_url(Endpoint(base_url="http://10.0.0.5:8000/v1", plain_http=True))
        == "http://10.0.0.5:8000/v1"
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"models": ()}, "at least one model"),
        ({"models": (LanguageModel("a"), LanguageModel("a"))}, "each once"),
        ({"models": (LanguageModel("a", share=0.0),)}, "share=0.0"),
        ({"models": (LanguageModel("a", prompt_price=-1.0),)}, "price"),
        ({"concurrency": 0}, "endpoint.concurrency=0: must be at least 1"),
        ({"tries": 0}, "endpoint.tries=0"),
        ({"timeout": math.nan}, "endpoint.timeout=nan"),
        ({"patience": math.inf}, "endpoint.patience=inf"),
    ],
)
def test_what_is_wrong_with_an_endpoint_is_said(changed, said):
    with pytest.raises(ConfigError, match=said):
        check_endpoint(endpoint("https://example.org", **changed))
