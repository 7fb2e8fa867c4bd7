"""A Hugging Face hub on this machine that serves one repository of model files, and remembers which of them were fetched."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """The files by their paths."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.files = dict(files)
        self.fetched: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve(body=True)

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _serve(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/somebody/model/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": _sum(data)}
                for name, data in self._all()
            ]
            self._answer(json.dumps(entries).encode(), {}, body=body)
        elif path.startswith("/api/models/somebody/model"):
            siblings = [{"rfilename": name} for name, _ in self._all()]
            info = {
                "id": "somebody/model",
                "sha": COMMIT,
                "siblings": siblings,
                "private": False,
                "tags": [],
                "downloads": 0,
            }
            self._answer(json.dumps(info).encode(), {}, body=body)
        elif (name := path.partition(f"/resolve/{COMMIT}/")[2]) in self.server.files:
            if body:
                self.server.fetched.append(name)
            data = self.server.files[name]
            self._answer(data, {"ETag": f'"{_sum(data)}"', "X-Repo-Commit": COMMIT}, body=body)
        else:
            self._answer(b"", {"X-Error-Code": "EntryNotFound"}, body=body, status=404)

    def _all(self) -> list[tuple[str, bytes]]:
        return sorted(self.server.files.items())

    def _answer(
        self, content: bytes, headers: Mapping[str, str], *, body: bool, status: int = 200
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _sum(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # noqa: S324  git's own


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Hub]:
    """The hub, until the end of the block."""
    with Hub(files) as hub:
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
