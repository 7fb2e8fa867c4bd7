"""Disks that are full, read-only, or fail at the n-th write."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path
from random import Random

from tests.faults.bench import ALONE, LONG, Bench, logged

HOW = ("full", "read-only", "eio")
SIZE = 8_000_000  # bytes of the small disk
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
/* From the n-th write below a folder named `checkpoints` on, all of them fail as on a broken disk. */
static int fails(int fd) {
  static long seen;
  const char *at = getenv("FAULT_WRITE");
  char name[64], path[4096];
  if (!at) return 0;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(name, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return strstr(path, "/checkpoints/") && __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) >= atol(at);
}
#define FAIL(fd) if (fails(fd)) { errno = EIO; return -1; }
ssize_t write(int fd, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  FAIL(fd) return real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
  static ssize_t (*real)(int, const struct iovec *, int);
  if (!real) real = dlsym(RTLD_NEXT, "writev");
  FAIL(fd) return real(fd, parts, count);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
  static ssize_t (*real)(int, const void *, size_t, off_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  FAIL(fd) return real(fd, data, size, at);
}
int fsync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  FAIL(fd) return real(fd);
}
"""


def shim(folder: Path) -> str:
    """A library that makes writes fail, for LD_PRELOAD."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shim.c").write_text(SHIM, encoding="utf-8")
    subprocess.run(
        [
            "cc",
            "-shared",
            "-fPIC",
            "-O1",
            "-o",
            str(folder / "shim.so"),
            str(folder / "shim.c"),
            "-ldl",
        ],
        check=True,
    )
    return str(folder / "shim.so")


def disks(bench: Bench, seed: int) -> dict:
    """The disk of the checkpoints breaks while the run is under way; it is mended when the run has ended, and the run goes on."""
    random, how = Random(seed), HOW[seed % len(HOW)]
    run = bench.folder / f"disks-{seed}"
    place = run / "checkpoints"
    place.mkdir(parents=True)
    found: dict = {
        "trial": "disks",
        "seed": seed,
        "run": str(run),
        "whole": str(bench.whole(ALONE)),
        "how": how,
    }
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], check=True)
    try:
        return found | _broken(bench, run, how, random)
    finally:
        shutil.copytree(place, run / "kept", dirs_exist_ok=True)
        subprocess.run(["umount", str(place)], check=True)
        shutil.copytree(run / "kept", place, dirs_exist_ok=True)


def _broken(bench: Bench, run: Path, how: str, random: Random) -> dict:
    place = run / "checkpoints"
    (child,) = bench.start(
        run, ALONE, **({"FAULT_WRITE": str(random.randint(1, 400))} if how == "eio" else {})
    )
    if how != "eio":
        child.reaches("step", random.randint(6, 25), LONG)
    if how == "full":
        _fill(place / "filler", random.randint(0, 30_000))
    elif how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    code = child.wait(LONG)
    failed = re.search(r"e5jax: (checkpoint (\d+): could not be saved .*)", child.said)
    phases, last = child.phases, logged(run)
    subprocess.run(["mount", "-o", f"remount,rw,size={SIZE}", str(place)], check=True)
    (place / "filler").unlink(missing_ok=True)
    there = sorted(int(path.parent.name) for path in place.glob("*/MANIFEST"))
    (again,) = bench.start(run, ALONE)
    resumed_code = again.wait(LONG)
    assert resumed_code == 0, again.said
    at = re.search(r"resumes at step (\d+)", again.said)
    return {
        "code": code,
        "message": failed[1][:300] if failed else child.said[-500:],
        "failed": int(failed[2]) if failed else 0,
        "stopped": phases[-1][1],
        "last": last,
        "sound": there,
        "resumed": int(at[1]) if at else 0,
    }


def _fill(path: Path, left: int) -> None:
    """Leaves so many bytes of a disk free, or fewer: the run writes at the same time."""
    with contextlib.suppress(OSError), path.open("wb") as file:  # full before it was meant to be
        free = shutil.disk_usage(path.parent).free
        file.write(b"\0" * max(0, free - left))
