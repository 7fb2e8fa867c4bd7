"""`e5jax plan`: what a run needs on a machine that one does not have."""

import json
import sys
from collections.abc import Sequence
from typing import NamedTuple

from e5jax.config.load import load
from e5jax.errors import ConfigError
from e5jax.plan.fill import Means
from e5jax.plan.machine import machine
from e5jax.plan.report import plan
from e5jax.plan.search import Search, search
from e5jax.plan.shape import shape_of
from e5jax.plan.summary import to_json
from e5jax.plan.table import table
from e5jax.plan.topology import Topology

FITS, DOES_NOT_FIT = 0, 1


class Options(NamedTuple):
    """How to plan: `means` of lengths, None for texts at the limit; `limit` the most trials of a search, None for none."""

    means: Means | None
    limit: int | None
    headroom: float  # per cent of a chip's memory that a search leaves free
    as_json: bool


def main(config: str, overrides: Sequence[str], topology: Topology, options: Options) -> int:
    """Plans and prints. Returns 0 when the run (or the best setting that was found) fits, 1 when not."""
    run = load(config, overrides)
    spec, on = shape_of(run), machine(topology)
    if options.limit is None:
        best, changes = plan(run, spec, on, options.means), ()
    else:
        if options.limit < 1:
            raise ConfigError(f"--limit={options.limit}: must be at least 1")
        if not 0 <= options.headroom < 100:
            raise ConfigError(
                f"--headroom={options.headroom:g}: must be at least 0 and below 100 per cent"
            )
        best, changes = search(
            Search(config, overrides, options.means, options.limit, options.headroom / 100),
            spec,
            on,
        )
    if best is None:
        print(
            f"e5jax: nothing that was tried fits {topology.name} with {options.headroom:g} % of memory free",
            file=sys.stderr,
        )
        return DOES_NOT_FIT
    if options.as_json:
        print(json.dumps(to_json(best, config) | {"overrides": list(changes)}, indent=2))
    else:
        print(table(best, config))
        if changes:
            print("\nbest of the search, to be typed after the config:\n  " + " ".join(changes))
    return FITS if best.fits else DOES_NOT_FIT
