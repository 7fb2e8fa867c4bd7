"""`python -m examples.demo_endpoint [options] [COMMAND …]`; see command.py."""

import sys

from e5jax.errors import ConfigError, report
from e5jax.versions import needed

if __name__ == "__main__":
    try:
        with needed("demo"):
            from examples.demo_endpoint.command import main
    except ConfigError as error:
        sys.exit(report(error))
    sys.exit(main(sys.argv[1:]))
