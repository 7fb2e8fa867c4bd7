"""A demo endpoint in a process of its own, for as long as it is needed."""

import asyncio
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from e5jax.errors import RunError
from e5jax.synth.config import Endpoint

NAME = "demo"  # as base_url
# The variables of the environment that the new process gets. Keys are in others.
_PASSED = re.compile(
    "PATH|HOME|TMPDIR|TZ|LANG|LC_.*|LD_LIBRARY_PATH|PYTHON.*|VIRTUAL_ENV|SYSTEMROOT"
)


@asynccontextmanager
async def reachable(endpoint: Endpoint) -> AsyncIterator[Endpoint]:
    """The endpoint itself, or the address of a new one if `base_url` asks for the demo; that one gets no secrets."""
    if endpoint.base_url != NAME:
        yield endpoint
        return
    program = [sys.executable, "-m", "e5jax.synth.demo", "--with-parent"]
    process = await asyncio.create_subprocess_exec(
        *program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise RunError("the demo endpoint did not start; it says why above")
        yield dataclasses.replace(
            endpoint, base_url=address, key_variable="", key_file="", headers=()
        )
    finally:
        process.stdin.close()
        await process.wait()
