"""Saves to disks that fail, in a process of its own with `faulty.c` before libc: `python -m tests.storage.cases FOLDER [FULL]`.

One line of JSON a case: what was seen. `test_storage` says what it has to be.
"""

import contextlib
import ctypes
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from e5jax.checkpoint import manifest
from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.checkpoint.manifest import DamagedError
from e5jax.checkpoint.retention import Retention, steps
from e5jax.errors import RunError

KINDS = ("write", "sync", "rename", "open")
ALWAYS = 1_000_000
MB = 2  # of the state
STEP = 0.02  # seconds


def state(seed: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {
        str(n): jax.device_put(random.standard_normal((MB * 32_768,), np.float32)) for n in range(8)
    }


def save(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, state(step), {"step": jax.device_put(np.int32(step))}, {})


def steps_until_known(folder: Path) -> tuple[str, int]:
    """Saves checkpoint 2 and takes steps: (what was said, steps between the failure in the background and that)."""
    late = 0
    try:
        with Checkpoints(folder, Retention(9), seconds=60, background=True) as checkpoints:
            save(checkpoints, 2)
            while checkpoints._saving is not None:
                late += checkpoints._saving.result.done()
                time.sleep(STEP)
                checkpoints.poll()
    except RunError as error:
        return str(error), late
    except OSError as error:  # a folder that cannot even be made
        return f"{type(error).__name__}: {error}", 0
    return "", 0


def sound(folder: Path) -> list[int]:
    """Steps whose every byte is as written, and whose numbers are."""
    found = []
    for step in steps(folder):
        with contextlib.suppress(DamagedError):
            manifest.check(folder / str(step))
            with Checkpoints(folder) as reader:
                got, _ = reader.restore(step, state(0), {"step": jax.device_put(np.int32(0))})
            assert all(np.array_equal(got[name], value) for name, value in state(step).items())
            found.append(step)
    return found


def look(folder: Path, mended: contextlib.AbstractContextManager) -> dict:
    """What is seen of a save while the disk fails, and of another one after it was mended."""
    with mended:
        said, late = steps_until_known(folder)
        left = sound(folder)
    with Checkpoints(folder, Retention(9)) as checkpoints:
        newest = checkpoints.newest()
        save(checkpoints, 3)
    strange = [
        path.name
        for path in folder.iterdir()
        if not path.name.isdecimal() and path.name != "quarantine"
    ]
    return {
        "said": said,
        "late": late,
        "left": left,
        "newest": newest,
        "after": sound(folder),
        "strange": strange,
    }


def fresh(root: Path, name: str) -> Path:
    folder = root / name
    with Checkpoints(folder, Retention(9)) as checkpoints:
        save(checkpoints, 1)
    return folder


@contextlib.contextmanager
def failing(
    library: ctypes.CDLL, folder: Path, kind: str, numbers: tuple[int, int], error: int
) -> Iterator[None]:
    library.faulty(os.fsencode(folder), KINDS.index(kind), *numbers, error)
    yield
    library.faulty(b"/nowhere", 0, 0, 0, 0)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def remounted(folder: Path, during: str, after: str) -> Iterator[None]:
    subprocess.run(["mount", "-o", f"remount,{during}", str(folder)], check=True)
    yield
    subprocess.run(["mount", "-o", f"remount,{after}", str(folder)], check=True)


def calls(library: ctypes.CDLL, folder: Path) -> dict[str, int]:
    """How many calls of each kind a save makes."""
    with failing(library, folder, "write", (0, 0), 0):
        steps_until_known(folder)
        return {kind: library.faulty_seen(number) for number, kind in enumerate(KINDS)}


def main(root: Path, full: bool) -> None:
    library = ctypes.CDLL(None)
    made = calls(library, fresh(root, "counted"))
    print(json.dumps({"calls": made}), flush=True)
    codes = (errno.EIO, errno.ENOSPC)
    for kind in KINDS:
        # Their number differs a little from save to save: the last ones counted may not be there.
        numbers = [1, made[kind] // 2, made[kind] * 3 // 4] if full else [made[kind] // 2]
        for number in numbers:
            for last in (number, ALWAYS):
                code = codes[(number + (last == ALWAYS)) % 2]
                folder = fresh(root, f"{kind}-{number}-{last}")
                seen = look(folder, failing(library, folder, kind, (number, last), code))
                print(
                    json.dumps(
                        {
                            "case": f"{kind} {number}",
                            "always": last == ALWAYS,
                            "code": errno.errorcode[code],
                            **seen,
                        }
                    ),
                    flush=True,
                )
    disk = root / "disk"
    for size in (5, 8, 12) if full else (5,):
        disk.mkdir(exist_ok=True)
        with mounted(disk, f"size={size}m"):
            folder = fresh(disk, "run")
            fill = disk / "else"
            fill.write_bytes(bytes(max(0, free(disk) - MB * 2**19)))
            seen = look(folder, removed(fill))
        show(f"full {size} MB", True, "ENOSPC", seen)
    with mounted(disk, "size=32m"):
        folder = fresh(disk, "run")
        seen = look(folder, remounted(disk, "ro", "rw"))
    show("read-only", True, "EROFS", seen)


def show(case: str, always: bool, code: str, seen: dict) -> None:
    print(json.dumps({"case": case, "always": always, "code": code, **seen}), flush=True)


def free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def removed(file: Path) -> Iterator[None]:
    yield
    file.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), "full" in sys.argv[2:])
    os._exit(0)  # as the command does: Orbax's threads wait for minutes for a save that has failed
