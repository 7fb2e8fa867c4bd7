"""Google's and Amazon's storage in this process, each with a bucket named `bucket`, found by the variables that clients read.

`python -m tests.storage.emulators gs|s3` serves other processes until its input ends, and says their variables as JSON.
"""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http import server as http
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gcp_storage_emulator import server as emulator
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server

from launch.launcher.worker import free_port


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


class Response(emulator.Response):
    """Says which version of an object it sends, as Google does: TensorStore asks for the same one again."""

    def close(self) -> None:
        sent = re.search(r"/b/([^/]+)/o/([^?]+)\?(.*&)?alt=media", self._handler.path)
        if sent and self._handler.command == "GET" and self.status == HTTPStatus.OK:
            self["x-goog-generation"] = self._handler.storage.get_file_obj(
                sent[1], unquote(sent[2])
            )["generation"]
        super().close()


@contextlib.contextmanager
def google() -> Iterator[int]:
    """Its port."""
    port = free_port()
    os.environ |= {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{port}",
    }
    http.HTTPServer = Threads
    emulator.Router = Router
    emulator.Response = Response
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    try:
        yield port
    finally:
        server.stop()


@contextlib.contextmanager
def amazon() -> Iterator[int]:
    """Its port."""
    app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        with lock:
            return list(app(environ, start))

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # says every request
    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    S3FileSystem().mkdir("bucket")
    try:
        yield server.server_port
    finally:
        server.shutdown()


EMULATORS = {"gs": google, "s3": amazon}
ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def in_another_process(kind: str) -> Iterator[dict[str, str]]:
    """The variables by which clients find it."""
    command = [sys.executable, "-m", "tests.storage.emulators", kind]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as served:
        assert served.stdout is not None
        yield json.loads(served.stdout.readline())


def main(kind: str) -> None:
    before = dict(os.environ)
    with EMULATORS[kind]():
        print(
            json.dumps(
                {name: value for name, value in os.environ.items() if before.get(name) != value}
            ),
            flush=True,
        )
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
