"""`python -m e5jax`, the same as the command `e5jax`."""

from e5jax.cli import command

if __name__ == "__main__":
    command()
