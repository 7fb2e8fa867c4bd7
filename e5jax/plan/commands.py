"""`e5jax plan`: memory, time and traffic of a run on a machine that is not there."""

import json
import sys
from collections.abc import Sequence

from e5jax.config.commands import PlanOptions
from e5jax.config.load import load
from e5jax.errors import ConfigError
from e5jax.plan.fill import parse_means
from e5jax.plan.machine import machine
from e5jax.plan.report import plan
from e5jax.plan.search import Search, search
from e5jax.plan.shape import shape_of
from e5jax.plan.summary import to_json
from e5jax.plan.table import table
from e5jax.plan.topology import Topology

FITS, DOES_NOT_FIT = 0, 1


def main(options: PlanOptions, overrides: Sequence[str], topology: Topology) -> int:
    """Plans and prints; returns 0 if the run (or the best setting of a search) fits, else 1."""
    if options.limit < 1:
        raise ConfigError(f"--limit={options.limit}: must be at least 1")
    if not 0 <= options.headroom < 100:
        raise ConfigError(f"--headroom={options.headroom:g}: must be from 0 to below 100 percent")
    means = parse_means(options.lengths) if options.lengths else None
    config, run = options.config, load(options.config, overrides)
    spec, on = shape_of(run), machine(topology)
    if options.search:
        trials = Search(config, overrides, means, options.limit, options.headroom / 100)
        best, changes = search(trials, spec, on)
    else:
        best, changes = plan(run, spec, on, means), ()
    if best is None:
        free = f"{options.headroom:g} % of memory free"
        print(f"e5jax: no setting of the search fits {topology.name} with {free}", file=sys.stderr)
        return DOES_NOT_FIT
    if options.json:
        print(json.dumps(to_json(best, config) | {"overrides": list(changes)}, indent=2))
    else:
        print(table(best, config))
        if changes:
            print("\nbest setting of the search, as overrides:\n  " + " ".join(changes))
    return FITS if best.fits else DOES_NOT_FIT
