"""Files and batches of the demo endpoint. All in memory; a batch is done some time after it was created."""

import asyncio
import json
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from aiohttp import BodyPartReader, web

Row = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


class Batches:
    """What the endpoint keeps. `row` answers the body of one line with a status and a body."""

    def __init__(self, seconds: float, lag: float, row: Row):
        self._seconds, self._lag, self._row, self._numbers = seconds, lag, row, count(1)
        self._files: dict[str, dict[str, Any]] = {}
        self._contents: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/files", self._upload),
            web.get("/v1/files", self._list_files),
            web.get("/v1/files/{id}/content", self._content),
            web.post("/v1/batches", self._create),
            web.get("/v1/batches", self._list_batches),
            web.get("/v1/batches/{id}", self._retrieve),
        ]

    def counts(self) -> dict[str, int]:
        """Batches that were created, and how many of them were asked for twice."""
        names = [(batch["metadata"] or {}).get("name") for batch in self._batches.values()]
        return {
            "batches": len(names),
            "duplicate_batches": len(names) - len(set(names)),
            "files": len(self._files),
        }

    async def _upload(self, request: web.Request) -> web.Response:
        name, content = "", b""
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)  # no nested forms
            if part.name == "file":
                name, content = part.filename or "", bytes(await part.read())
        return web.json_response(self._keep(name, content, "batch"))

    def _keep(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        file = {
            "id": f"file-{next(self._numbers)}",
            "object": "file",
            "filename": name,
            "bytes": len(content),
            "purpose": purpose,
        }
        self._files[file["id"]] = file | {"created_at": int(time.time()), "status": "processed"}
        self._contents[file["id"]] = content
        return self._files[file["id"]]

    async def _list_files(self, request: web.Request) -> web.Response:
        return _page(list(self._files.values()), request)

    async def _content(self, request: web.Request) -> web.Response:
        content = self._contents.get(request.match_info["id"])
        return _missing() if content is None else web.Response(body=content)

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["input_file_id"] not in self._files:
            return _missing()
        await asyncio.sleep(self._lag)
        name = f"batch-{next(self._numbers)}"
        self._batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"],
            "completion_window": asked["completion_window"],
            "metadata": asked.get("metadata"),
            "status": "in_progress",
            "created_at": time.time(),
            "output_file_id": None,
            "error_file_id": None,
        }
        await asyncio.sleep(self._lag)
        return web.json_response(self._batches[name])

    async def _list_batches(self, request: web.Request) -> web.Response:
        return _page(list(reversed(self._batches.values())), request)

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self._batches.get(request.match_info["id"])
        if batch is None:
            return _missing()
        if batch["status"] == "in_progress" and time.time() >= batch["created_at"] + self._seconds:
            self._finish(batch)
        return web.json_response(batch)

    def _finish(self, batch: dict[str, Any]) -> None:
        """Rows in another order than they came in, failed ones in a file of their own, as the protocol allows."""
        done: dict[bool, list[str]] = {True: [], False: []}
        for line in reversed(self._contents[batch["input_file_id"]].splitlines()):
            asked = json.loads(line)
            status, body = self._row(asked["body"])
            answer = {
                "id": f"row-{asked['custom_id']}",
                "custom_id": asked["custom_id"],
                "error": None,
            }
            done[status == 200].append(
                json.dumps(answer | {"response": {"status_code": status, "body": body}})
            )
        batch["status"] = "completed"
        for field, good in (("output_file_id", True), ("error_file_id", False)):
            if done[good]:
                batch[field] = self._keep(
                    f"{batch['id']}-{field}.jsonl",
                    "\n".join([*done[good], ""]).encode(),
                    "batch_output",
                )["id"]


def _page(rows: list[dict[str, Any]], request: web.Request) -> web.Response:
    """`limit` rows behind the one whose id is `after`."""
    after, limit = request.query.get("after"), int(request.query.get("limit", "20"))
    start = next((i + 1 for i, row in enumerate(rows) if row["id"] == after), 0)
    shown = rows[start : start + limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
    return web.json_response(
        {"object": "list", "data": shown, "has_more": start + limit < len(rows), **ends}
    )


def _missing() -> web.Response:
    return web.json_response(
        {"error": {"message": "there is no such thing", "code": None}}, status=404
    )
