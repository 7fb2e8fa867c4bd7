"""Checkpoints in a bucket, with an emulator of Google's storage in this process: `python -m tests.storage.bucket`.

One JSON object: what was seen. `test_bucket` says what it has to be.
"""

import json
import logging
import os
import socket
import threading
from http import server as http

import jax
import numpy as np
from etils import epath
from gcp_storage_emulator import server as emulator

from e5jax import manifest, retention
from e5jax.checkpoint import Checkpoints
from e5jax.retention import Retention
from e5jax.storage import folder_of

FOLDER = "gs://bucket/runs/one"


class Threads(http.ThreadingHTTPServer):
    """Answers each connection on its own: one after the other, one that is silent makes all others wait for ever."""

    request_queue_size = 128


class Router(emulator.Router):
    """One request at a time: the emulator's tables are plain dictionaries that it also iterates over.

    Else a deletion may fail once the object is gone; gcsfs repeats it, and finds nothing to delete.
    """

    lock = threading.Lock()

    def handle(self, method: str) -> None:
        with self.lock:
            super().handle(method)


class Handler(emulator.RequestHandler):
    """The emulator cannot move objects. Told that the request is wrong, gcsfs copies; else it tries for half a minute first."""

    def do_POST(self) -> None:  # noqa: N802  the name that http.server calls
        if "/moveTo/" in self.path:
            self.send_error(http.HTTPStatus.BAD_REQUEST)
        else:
            super().do_POST()


def state(seed: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {str(n): jax.device_put(random.standard_normal((64, 64), np.float32)) for n in range(4)}


def restored(step: int) -> bool:
    with Checkpoints(folder_of(FOLDER)) as reader:
        found, rest = reader.restore(step, state(0), {"step": jax.device_put(np.int32(0))})
    return int(rest["step"]) == step and all(np.array_equal(found[name], value) for name, value in state(step).items())


def newest() -> int | None:
    with Checkpoints(folder_of(FOLDER)) as reader:
        return reader.newest()


def write(*numbers: int) -> None:
    with Checkpoints(folder_of(FOLDER), Retention(2)) as checkpoints:
        for step in numbers:
            checkpoints.newest()
            checkpoints.save(step, state(step), {"step": jax.device_put(np.int32(step))}, {"said": step})
            checkpoints.finish()


def listing() -> list[str]:
    return sorted(retention.listing(folder_of(FOLDER), verify=True)[0])


def walk() -> dict[str, object]:
    folder = epath.Path(FOLDER)
    seen: dict[str, object] = {}
    write(1, 2, 3)
    seen["kept"], seen["newest"], seen["restored"] = retention.steps(folder_of(FOLDER)), newest(), restored(3)
    with Checkpoints(folder_of(FOLDER)) as reader:
        seen["facts"] = reader.facts(3)
    data = max(manifest.read(folder_of(FOLDER) / "3").files.items(), key=lambda item: item[1].bytes)[0]
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
    return seen


def main() -> None:
    logging.disable(logging.WARNING)  # gcsfs looks for credentials
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{port}"}
    http.HTTPServer = Threads
    emulator.RequestHandler = Handler
    emulator.Router = Router
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", port)):  # silent, as one of a client's pool may be
            print(json.dumps(walk()), flush=True)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
