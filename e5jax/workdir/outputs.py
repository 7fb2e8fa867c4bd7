"""Records which files a command wrote, so that it replaces its own output and nothing else.

The list `e5jax.files` lies beside the files that a command writes, or inside a folder that it
writes as a whole. It has a line of JSON for each file: command, name and size, and for single files
the time of modification. A command may write a path if nothing exists there, or if the list says
that the same command wrote what is there and nobody has changed it since.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from e5jax.errors import ConfigError

LIST = "e5jax.files"
WHOLE = "."  # the entry of a folder that was written as a whole


class Entry(NamedTuple):
    """A file that a command wrote."""

    command: str
    name: str
    bytes: int
    modified: int = 0  # nanoseconds; 0 in a folder written as a whole, so that it may be copied


def check(path: Path, command: str, *, folder: bool) -> None:
    """Raises ConfigError if `command` may not write `path`, naming what is there.

    `folder`: whether it will be a folder.
    """
    where, fix = f"--output={path}", "move it away, or choose another --output"
    check_writable(path)
    if not os.path.lexists(path):
        return
    if folder and path.is_dir():
        if problem := _wrong_in(path, command):
            raise ConfigError(f"{where}: holds {problem}; {fix}")
        return
    kind = "a file" if path.is_file() else "neither a file nor a folder"
    kind = "a folder" if path.is_dir() else kind
    if folder or kind != "a file":
        raise ConfigError(
            f"{where}: is {kind}, which `e5jax {command}` has not written; choose another --output"
        )
    regular = stat.S_ISREG(path.lstat().st_mode)
    if not regular or _file_entry(path, path.name, command) not in _entries(path.parent):
        raise ConfigError(
            f"{where}: is a file that `e5jax {command}` has not written, "
            f"or that has changed since; {fix}"
        )


def check_writable(path: Path, option: str = "--output") -> None:
    """Raises ConfigError if this user cannot create `path`, by its nearest existing parent."""
    above = path
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        if above != path:
            raise ConfigError(
                f"{option}={path}: {above} is a file, not a folder; choose another {option}"
            )
        return
    effective = os.access in os.supports_effective_ids
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=effective):
        raise ConfigError(
            f"{option}={path}: this user cannot write to {above}; choose another {option}"
        )


def _wrong_in(folder: Path, command: str) -> str:
    """The reason why a folder may not be replaced, or an empty string."""
    names = sorted(path.name for path in folder.iterdir())
    entries = _entries(folder)
    commands = [entry.command for entry in entries if entry.name == WHOLE]
    if names and command not in commands:
        few = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        other = f" but `e5jax {commands[0]}`" if commands else ""
        return f"{few}, which `e5jax {command}` has not written{other}"
    listed = {entry.name: entry.bytes for entry in entries if entry.command == command}
    for name in _files(folder):
        if (folder / name).is_symlink() or listed.get(name) != (folder / name).stat().st_size:
            return f"{name}, which `e5jax {command}` has not written, or which has changed since"
    return ""


def note_file(file: Path, target: Path, command: str) -> None:
    """Records `file`, which is about to be moved to `target`."""
    _append(target.parent, [_file_entry(file, target.name, command)])


def _file_entry(file: Path, name: str, command: str) -> Entry:
    status = file.stat()
    return Entry(command, name, status.st_size, status.st_mtime_ns)


def note_folder(folder: Path, command: str) -> None:
    """Records all files of a folder, in the folder."""
    entries = [Entry(command, name, (folder / name).stat().st_size) for name in _files(folder)]
    _append(folder, [Entry(command, WHOLE, 0), *entries])


def list_again(file: Path, command: str) -> None:
    """Records the new size of a file that this program changed in a folder with a list."""
    if (file.parent / LIST).exists():
        _append(file.parent, [Entry(command, file.name, file.stat().st_size)])


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if (path.is_symlink() or not path.is_dir()) and path.name != LIST:
            yield path.relative_to(folder).as_posix()


def _append(folder: Path, entries: list[Entry]) -> None:
    """Appends in a single write, so that the lines of concurrent commands do not mix."""
    text = "".join(json.dumps(entry._asdict()) + "\n" for entry in entries)
    descriptor = os.open(
        folder / LIST, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
    )
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _entries(folder: Path) -> list[Entry]:
    """Ignores lines that are incomplete, as after a full disk."""
    entries = []
    try:
        lines = (folder / LIST).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return entries
