"""The journal of a run: each request before it is sent, each reply before it is used. Append-only; the truth after a crash.

A line is a JSON object whose last field is the CRC-32 of what stands before it. What is written together is made durable
together (group commit). A line that a crash cut off is cut away when the journal is opened again.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self
from zlib import crc32

from e5jax.errors import ConfigError, RecordError, RunError
from e5jax.jsonl import parse_object
from e5jax.llm_client.request import Failure, Reply, Stop
from e5jax.llm_client.sent_log import SentLog
from e5jax.llm_client.usage import Usage
from e5jax.workdir import lock

VERSION = 1
_SEAL = re.compile(rb',"crc":"([0-9a-f]{8})"\}\n\Z')
_KINDS = {"reply": Reply, "failure": Failure}


def encode(values: dict[str, Any]) -> bytes:
    """One line."""
    body = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()[
        :-1
    ]
    return body + b',"crc":"%08x"}\n' % crc32(body)


def decode(line: bytes) -> dict[str, Any] | None:
    """Inverse of `encode`; None for a line that is damaged."""
    seal = _SEAL.search(line)
    if seal is None or int(seal[1], 16) != crc32(line[: seal.start()]):
        return None
    try:
        return parse_object(line[: seal.start()] + b"}")
    except RecordError:
        return None


class Journal:
    """Open with `async with`. One process at a time."""

    def __init__(self, path: Path, ledger: Usage):
        self.path, self.ledger = path, ledger
        self.damaged = 0  # whole lines whose checksum is wrong; their requests are asked again
        self._places: dict[tuple[str, int], tuple[int, int]] = {}
        self.run = secrets.token_hex(6)  # tells its batches from those of other runs
        self.batches: dict[str, dict[str, Any]] = {}  # the last line of each
        self.mark = SentLog(path.with_suffix(".sent"))
        self._waiting: list[bytes] = []
        self._done: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._file: BinaryIO
        self._end = 0

    async def __aenter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            self._file = _open(self.path, opened)
            self._replay()
            await self._start()
            self._opened = opened.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            await asyncio.wait([self._writer])
        self.mark.close()
        self._opened.close()

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._places

    def outcome(self, key: tuple[str, int]) -> Reply | Failure | None:
        """What came of a request; None if that is still open."""
        if (place := self._places.get(key)) is None:
            return None
        line = decode(os.pread(self._file.fileno(), place[1], place[0]))
        if line is None:
            raise RunError(
                f"{self.path}: byte {place[0]:,} has changed since it was read; is another program writing there?"
            )
        return _KINDS[line.pop("kind")](**line)

    async def write(self, *lines: dict[str, Any]) -> None:
        """Returns once the lines are on the disk. Raises Stop when they cannot be: then nothing is written any more."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        if self._writer is None:
            self._writer = asyncio.create_task(self._commit())
        done = self._done
        self._waiting += map(encode, lines)
        await asyncio.shield(done)

    async def _commit(self) -> None:
        """Writes until nothing is waiting. Meanwhile the next lines gather."""
        while self._waiting and self._done is not None:
            lines, done = self._waiting, self._done
            self._waiting, self._done = [], None
            try:
                await asyncio.to_thread(self._write, b"".join(lines))
            except OSError as error:
                self._fail(done, error)
                return
            for line in lines:
                self._note(json.loads(line), self._end, len(line))
                self._end += len(line)
            done.set_result(None)
        self._writer = None

    def _fail(self, done: asyncio.Future[None], error: OSError) -> None:
        """The end of the file is unknown now: every write from here on fails alike."""
        self._done = self._done or asyncio.get_running_loop().create_future()
        for future in {done, self._done}:
            future.set_exception(
                Stop(f"{self.path}: {error.strerror}; make room, then the same command goes on")
            )
            future.exception()  # whether anyone waits for it or not

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file.fileno(), view) :]
        os.fsync(self._file.fileno())

    def _note(self, line: dict[str, Any], start: int, length: int) -> None:
        self.ledger.add(line)
        if line["kind"] == "start":
            self.run = line["run"]
        elif line["kind"] in _KINDS:
            self._places[line["id"], line["attempt"]] = start, length
        elif line["kind"] == "batch":
            self.batches[line["name"]] = line

    def _replay(self) -> None:
        """Reads all whole lines, and cuts away what is behind the last of them."""
        for line in self._lines():
            values = decode(line)
            if values is None:
                self.damaged += 1
            elif values.get("version", VERSION) != VERSION:
                raise ConfigError(
                    f"{self.path}: written by another version of e5jax; choose another --output"
                )
            else:
                self._note(values, self._end, len(line))
            self._end += len(line)
        os.ftruncate(self._file.fileno(), self._end)
        os.lseek(self._file.fileno(), self._end, os.SEEK_SET)

    async def _start(self) -> None:
        """A new session. What the last one announced and did not send is taken back first."""
        unsent = self.ledger.unsent(self.mark.read(self.ledger.sessions))
        withdrawn = [
            {"kind": "withdrawn", "id": name, "attempt": attempt} for name, attempt in unsent
        ]
        await self.write(*withdrawn, {"kind": "start", "version": VERSION, "run": self.run})
        self.mark.begin(self.ledger.sessions)

    def _lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line


def _open(path: Path, opened: contextlib.ExitStack) -> BinaryIO:
    """For reading and appending, by this process alone; readable by its owner alone, as prompts may be private."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened.enter_context(
            lock.hold(
                path.with_name(f".{path.name}.lock"),
                f"--output={path.parent}",
                "choose another --output",
            )
        )
        created = not path.exists()
        file = os.fdopen(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0
        )
        opened.callback(file.close)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; choose another --output") from error
    if created:
        folder = os.open(
            path.parent, os.O_RDONLY
        )  # else the file's name might not outlive a power cut
        os.fsync(folder)
        os.close(folder)
    return file
