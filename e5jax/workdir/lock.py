"""A lock file that names its holder and also works between hosts that share a file system.

On one host the kernel releases the lock (flock) when its holder ends, however it ends. Some file
systems keep such locks local to a host, so the holder also writes its host, its pid and a counter
into the file, and increments the counter every few seconds. A lock of another host whose counter
has stopped is taken over.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple

from e5jax.errors import ERROR, ConfigError

BEAT = 5.0  # seconds between two increments of the counter
STALE = 30.0  # seconds without one after which a holder on another host counts as dead
WRITING = 2.0  # seconds within which a process writes its name into a new lock file
POLL = 0.2
ABANDONED = 86_400  # seconds after which the mark of another host (`in_use`) no longer counts
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Holder(NamedTuple):
    """The process that holds a lock."""

    host: str
    pid: int
    since: str
    kernel: str  # a different value for each host and boot
    beat: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def process(self) -> tuple[str, int, str]:
        """Identifies the process: the fields that stay the same while it holds the lock."""
        return self.kernel, self.pid, self.since


@contextlib.contextmanager
def hold(path: Path, name: str, fix: str) -> Iterator[None]:
    """Holds the lock file `path`, whose folder must exist; `name` is what the user called it.

    Raises ConfigError, naming the holder, if another process holds it. A dead one on this host is
    detected at once, one on another after `STALE` seconds; a message is printed meanwhile.
    """
    holder, descriptor = _acquire(path, name, fix)
    over = threading.Event()
    beating = threading.Thread(
        target=_beat, args=(path, name, holder, descriptor, over), name="lock", daemon=True
    )
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        if _is_same_file(path, descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, name: str, fix: str) -> tuple[Holder, int]:
    while True:
        descriptor, new = _open(path)
        try:
            local = _flock(descriptor)
            before = None if new else _read_soon(path)
            # Only the holder's own kernel can know that it is dead.
            local &= before is None or before.kernel == _kernel()
            if before is not None and not local:
                _wait_for_sign(path, before, name, fix)
            if _is_same_file(path, descriptor):
                holder = _write(descriptor, _myself())
                if (other := _changed(path, holder, 0 if local else 2 * POLL)) is not None:
                    raise _busy(name, other, fix)
                return holder, descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise _busy(name, _read_soon(path), fix) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> tuple[int, bool]:
    """Returns the descriptor of the lock file, and whether it is new."""
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), True
        with contextlib.suppress(FileNotFoundError):  # released in between
            return os.open(path, os.O_RDWR | os.O_CLOEXEC), False


def _flock(descriptor: int) -> bool:
    """Takes the kernel's lock; returns False if the file system has none.

    Raises BlockingIOError if another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        return False
    return True


def _wait_for_sign(path: Path, holder: Holder, name: str, fix: str) -> None:
    """Waits until a holder on another host is known to be dead, or has released the lock."""
    print(
        f"e5jax: {name}: held by {holder}; waiting up to {STALE:.0f} s for a sign that it lives",
        file=sys.stderr,
        flush=True,
    )
    if (other := _changed(path, holder, STALE)) is not None:
        raise _busy(name, other, fix)


def _changed(path: Path, holder: Holder, seconds: float) -> Holder | None:
    """Watches a lock file; returns its new holder, or None if it stays the same or disappears."""
    deadline = time.monotonic() + seconds
    while True:
        now = _read(path)
        if now is not None and now != holder:
            return now
        if time.monotonic() > deadline or not path.exists():
            return None
        time.sleep(POLL)


def _read_soon(path: Path) -> Holder | None:
    """Reads the holder; waits a little for a process that is about to write its name."""
    deadline = time.monotonic() + WRITING
    while (holder := _read(path)) is None and path.exists() and time.monotonic() < deadline:
        time.sleep(POLL / 10)
    return holder


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(descriptor: int, holder: Holder) -> Holder:
    text = json.dumps(holder._asdict()).encode()
    os.ftruncate(descriptor, len(text))
    os.pwrite(descriptor, text, 0)
    os.fsync(descriptor)
    return holder


def _beat(path: Path, name: str, holder: Holder, descriptor: int, over: threading.Event) -> None:
    """Increments the counter. Ends this process if another one has taken the lock over.

    That happens after this machine was suspended for a long time.
    """
    while not over.wait(BEAT):
        with contextlib.suppress(OSError):  # a file system that is unavailable for a moment
            now = _read(path)
            if now is not None and now.process() != holder.process():
                print(
                    f"e5jax: {name}: taken over by {now}; this process stops",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(ERROR)
            holder = _write(descriptor, holder._replace(beat=holder.beat + 1))


def _busy(name: str, holder: Holder | None, fix: str) -> ConfigError:
    return ConfigError(
        f"{name}: another process is at work there ({holder or 'it has just begun'}); "
        f"wait for it, or {fix}"
    )


def _is_same_file(path: Path, descriptor: int) -> bool:
    """Whether the open file is still at `path`: the last holder may have deleted it meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _myself() -> Holder:
    return Holder(
        socket.gethostname(), os.getpid(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", _kernel()
    )


@cache
def _kernel() -> str:
    return _BOOT.read_text(encoding="ascii").strip() if _BOOT.exists() else socket.gethostname()


# --- files in use --------------------------------------------------------------------------------


@contextlib.contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Marks a folder as used by this process, by a new file in it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        _flock(descriptor)
        os.write(descriptor, json.dumps(_myself()._asdict()).encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_abandoned(path: Path) -> bool:
    """Whether the process that created the mark `path` is dead."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):  # of another user
        return False
    try:
        kernel_lock, holder = _flock(descriptor), _read(path)
        here = kernel_lock and holder is not None and holder.kernel == _kernel()
        return here or time.time() - os.fstat(descriptor).st_mtime > ABANDONED
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
