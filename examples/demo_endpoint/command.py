"""Runs the demonstration endpoint: `python -m examples.demo_endpoint [options] [COMMAND …]`.

It prints its address and serves until it is interrupted. With a command it serves while the command
runs, which finds the address in OPENAI_BASE_URL, and returns its exit code.
"""

import argparse
import asyncio
import contextlib
import math
import os
import shutil
import signal
from collections.abc import Sequence

from e5jax.errors import ConfigError
from examples.demo_endpoint.faults import NAMES
from examples.demo_endpoint.sentences import catalogues
from examples.demo_endpoint.server import Demo, serve


def parser() -> argparse.ArgumentParser:
    """Options of the endpoint."""
    options = argparse.ArgumentParser(
        prog="python -m examples.demo_endpoint",
        description="Serves generated text through an OpenAI-compatible API, with faults on demand.",
    )
    for name, kind, default, metavar, text in (
        ("port", int, 0, "N", "0: any free port (default: %(default)s)"),
        ("seed", int, 0, "N", "seed of the replies (default: %(default)s)"),
        ("latency", float, 0.0, "S", "mean seconds per reply (default: %(default)s)"),
        ("requests-a-minute", float, math.inf, "N", "answers more requests with 429"),
        ("tokens-a-minute", float, math.inf, "N", "answers more tokens with 429"),
        ("batch-seconds", float, 0.5, "S", "duration of a batch (default: %(default)s)"),
    ):
        options.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)
    options.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=SHARE",
        help=f"share of requests with this fault; repeatable. Names: {', '.join(NAMES)}",
    )
    options.add_argument("command", nargs=argparse.REMAINDER, help="command to run meanwhile")
    return options


def main(argv: Sequence[str]) -> int:
    """Serves until interrupted, or while a command runs; returns the exit code."""
    options = parser()
    args = options.parse_args(argv)
    if args.command and shutil.which(args.command[0]) is None:
        options.error(f"{args.command[0]}: no such program")
    demo = Demo(
        seed=args.seed,
        latency=args.latency,
        requests_a_minute=args.requests_a_minute,
        tokens_a_minute=args.tokens_a_minute,
        batch_seconds=args.batch_seconds,
        faults=dict(_fault(word, options) for word in args.fault),
    )
    try:
        catalogues()
    except ConfigError as error:
        options.error(str(error))
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(_serve(demo, args.port, args.command))
    return 0


def _fault(word: str, options: argparse.ArgumentParser) -> tuple[str, float]:
    name, _, share = word.partition("=")
    if name not in NAMES:
        options.error(f"--fault={word}: {name!r} is not one of {', '.join(NAMES)}")
    try:
        return name, float(share)
    except ValueError:
        options.error(f"--fault={word}: write NAME=SHARE, for instance {name}=0.01")


async def _serve(demo: Demo, port: int, command: Sequence[str]) -> int:
    async with serve(demo, port) as (address, _):
        if not command:
            print(address, flush=True)
            await asyncio.Event().wait()
        environment = {**os.environ, "OPENAI_BASE_URL": address}
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the command gets Ctrl-C as well
        loop.add_signal_handler(signal.SIGTERM, process.terminate)
        code = await process.wait()
        return code if code >= 0 else 128 - code
