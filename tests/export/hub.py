"""A Hugging Face hub on this machine: takes a repository and its files as the real one does, and keeps them in memory."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Hub(ThreadingHTTPServer):
    """What was sent to it. Requests without the token are refused."""

    token = "hf_of_a_test"  # noqa: S105

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.created: list[dict[str, Any]] = []
        self.commits: list[str] = []
        self.large: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._answer({"error": "Invalid user token."}, 401)
        elif self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/somebody/model"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": _mode(f["path"]),
                    "shouldIgnore": False,
                    "oid": None,
                }
                for f in files
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            self._answer(
                {
                    "transfer": "basic",
                    "objects": [
                        one | {"actions": {"upload": {"href": self._at(one)}}} for one in wanted
                    ],
                }
            )
        elif "/commit/" in self.path:
            self._commit([json.loads(line) for line in body.splitlines()])
            self._answer(
                {
                    "success": True,
                    "commitOid": "0" * 40,
                    "commitUrl": f"{self.server.address}/somebody/model/commit/0",
                }
            )
        else:
            self._answer({"error": f"no {self.path}"}, 404)

    def do_PUT(self) -> None:
        body = self._body()
        assert self.path.endswith(hashlib.sha256(body).hexdigest())
        self.server.large[self.path.rpartition("/")[2]] = body
        self._answer({})

    def log_message(self, *_: object) -> None:
        """Silence."""

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "header":
                self.server.commits.append(value["summary"])
            elif kind == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            else:
                self.server.files[value["path"]] = self.server.large[value["oid"]]

    def _at(self, one: dict[str, Any]) -> str:
        return f"{self.server.address}/storage/{one['oid']}"

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


@contextmanager
def running() -> Iterator[Hub]:
    """The hub, until the end of the block."""
    with Hub() as hub:
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
