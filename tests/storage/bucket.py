"""Checkpoints in a bucket, with Google's or Amazon's storage in this process: `python -m tests.storage.bucket gs|s3`.

One JSON object: what was seen. `test_bucket` says what it has to be.
"""

import json
import logging
import socket
import sys

import jax
import numpy as np
from etils import epath

from e5jax.checkpoint import manifest, retention
from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.checkpoint.retention import Retention
from e5jax.errors import ConfigError
from e5jax.storage import folder_of
from tests.storage.emulators import EMULATORS

FOLDER = f"{sys.argv[1]}://bucket/runs/one"


def state(seed: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {str(n): jax.device_put(random.standard_normal((64, 64), np.float32)) for n in range(4)}


def restored(step: int) -> bool:
    with Checkpoints(folder_of(FOLDER)) as reader:
        found, rest = reader.restore(step, state(0), {"step": jax.device_put(np.int32(0))})
    return int(rest["step"]) == step and all(
        np.array_equal(found[name], value) for name, value in state(step).items()
    )


def opened(step: int) -> bool:
    """Whether an export, which reads a parameter at a time, reads the same."""
    made = state(step)
    with Checkpoints(folder_of(FOLDER)) as reader:
        found = reader.open_parameters(
            step,
            {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in made.items()},
        )
        return all(np.array_equal(np.asarray(found[name]), value) for name, value in made.items())


def newest() -> int | None:
    with Checkpoints(folder_of(FOLDER)) as reader:
        return reader.newest()


def write(*numbers: int) -> None:
    with Checkpoints(folder_of(FOLDER), Retention(2)) as checkpoints:
        for step in numbers:
            checkpoints.newest()
            checkpoints.save(
                step, state(step), {"step": jax.device_put(np.int32(step))}, {"said": step}
            )
            checkpoints.finish()


def listing() -> list[str]:
    return sorted(retention.listing(folder_of(FOLDER), verify=True)[0])


def walk() -> dict[str, object]:
    folder = epath.Path(FOLDER)
    seen: dict[str, object] = {}
    write(1, 2, 3)
    seen["kept"], seen["newest"], seen["restored"] = (
        retention.steps(folder_of(FOLDER)),
        newest(),
        [restored(3), opened(3)],
    )
    with Checkpoints(folder_of(FOLDER)) as reader:
        seen["facts"] = reader.facts(3)
    data = max(
        manifest.read(folder_of(FOLDER) / "3").files.items(), key=lambda item: item[1].bytes
    )[0]
    whole = (folder / "3" / data).read_bytes()
    (folder / "3" / data).write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    seen["flipped"] = [newest(), restored(2)]
    (folder / "3" / data).write_bytes(whole)
    seen["mended"] = newest()
    (folder / "3" / manifest.NAME).unlink()  # as a process leaves it that is killed before the end
    seen["killed"] = newest()
    write(4)
    seen["after"] = [newest(), restored(4), retention.steps(folder_of(FOLDER))]
    seen["aside"] = sorted(path.name for path in (folder / "quarantine").iterdir())
    seen["listing"] = listing()
    try:
        Checkpoints(folder_of(f"{sys.argv[1]}://no-such-bucket/run"), Retention(1))
    except ConfigError as error:
        seen["nowhere"] = str(error)
    return seen


def main() -> None:
    logging.disable(logging.WARNING)  # gcsfs looks for credentials
    # One connection is silent, as one of a client's pool may be.
    with EMULATORS[sys.argv[1]]() as port, socket.create_connection(("127.0.0.1", port)):
        print(json.dumps(walk()), flush=True)


if __name__ == "__main__":
    main()
