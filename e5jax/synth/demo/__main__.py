"""`python -m e5jax.synth.demo`: runs the demo endpoint until it is interrupted, and prints its address."""

import argparse
import asyncio
import contextlib
import math
import sys

from e5jax.errors import ConfigError
from e5jax.synth.demo.faults import NAMES
from e5jax.synth.demo.sentences import catalogues
from e5jax.synth.demo.server import Demo, serve


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m e5jax.synth.demo", description=__doc__)
    parser.add_argument(
        "--port",
        type=int,
        default=0,
        metavar="N",
        help="0: any that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="another one gives other replies (default: %(default)s)",
    )
    parser.add_argument(
        "--latency",
        type=float,
        default=0.0,
        metavar="S",
        help="mean seconds of a reply (default: %(default)s)",
    )
    parser.add_argument(
        "--requests-a-minute",
        type=float,
        default=math.inf,
        metavar="N",
        help="more are answered with 429",
    )
    parser.add_argument(
        "--tokens-a-minute",
        type=float,
        default=math.inf,
        metavar="N",
        help="more are answered with 429",
    )
    parser.add_argument(
        "--batch-seconds",
        type=float,
        default=0.5,
        metavar="S",
        help="that a batch takes (default: %(default)s)",
    )
    text = f"goes wrong in that share of the requests; may be repeated. Names: {', '.join(NAMES)}"
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=SHARE", help=text)
    parser.add_argument(
        "--with-parent", action="store_true", help="ends when its standard input does"
    )
    args = parser.parse_args()
    chances = dict(_fault(word, parser) for word in args.fault)
    demo = Demo(
        seed=args.seed,
        latency=args.latency,
        requests_a_minute=args.requests_a_minute,
        tokens_a_minute=args.tokens_a_minute,
        batch_seconds=args.batch_seconds,
        faults=chances,
    )
    try:
        catalogues()
    except ConfigError as error:
        parser.error(str(error))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(demo, args.port, args.with_parent))


def _fault(word: str, parser: argparse.ArgumentParser) -> tuple[str, float]:
    name, _, share = word.partition("=")
    if name not in NAMES:
        parser.error(f"--fault={word}: {name!r} is not one of {', '.join(NAMES)}")
    try:
        return name, float(share)
    except ValueError:
        parser.error(f"--fault={word}: write NAME=SHARE, for instance {name}=0.01")


async def _serve(demo: Demo, port: int, with_parent: bool) -> None:
    ended = asyncio.Event()
    if with_parent:
        asyncio.get_running_loop().add_reader(
            sys.stdin, ended.set
        )  # readable only once it is closed: nobody writes there
    async with serve(demo, port) as (address, _):
        print(address, flush=True)
        await ended.wait()


if __name__ == "__main__":
    main()
