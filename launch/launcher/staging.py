"""Code goes to the machines of a run by commit, once: what runs is what the commit says, whatever happens here meanwhile."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from e5jax.errors import ConfigError
from launch.launcher.request import Request
from launch.launcher.shell import Shell, Step, need

ROOT = Path(__file__).parents[2]
SHORT = 12  # digits of a commit


def commit(allow_dirty: bool, file: str, *, dry: bool = False) -> str:
    """The commit to stage, which holds this file. Raises ConfigError when the working tree has something else.

    With `allow_dirty` it is a commit of the working tree as it is, that no branch has; a `dry` one is the last commit.
    """
    need("git")
    if not (ROOT / ".git").exists():
        raise ConfigError(
            f"{ROOT} is not a git checkout: code is staged by commit; clone the repository"
        )
    if dry:
        return _git("rev-parse", "HEAD").strip()
    changed = _git("status", "--porcelain").splitlines()
    if changed and not allow_dirty:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        names = ", ".join(line[3:] for line in changed[:3])
        raise ConfigError(
            f"the working tree is not as it was committed ({names}{more}): commit it, or --allow-dirty stages it as it is"
        )
    found = _working_tree() if changed else _git("rev-parse", "HEAD").strip()
    if (
        file
        and not Path(file).is_absolute()
        and not _git("ls-tree", "--name-only", found, "--", file).strip()
    ):
        raise ConfigError(
            f"{file} is not in commit {found[:SHORT]}: git add and commit it, or --allow-dirty stages it as it is"
        )
    return found


def _working_tree() -> str:
    """A commit of all files that git does not ignore; the index is left alone."""
    with tempfile.TemporaryDirectory() as folder:
        around = {**os.environ, "GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git("read-tree", "HEAD", around=around)
        _git("add", "--all", around=around)
        tree = _git("write-tree", around=around).strip()
    named = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "e5jax"), ("EMAIL", "e5jax@localhost"))
    }
    return _git(
        "commit-tree", tree, "-p", "HEAD", "-m", "staged as it was", around={**os.environ, **named}
    ).strip()


def archive(found: str, folder: Path) -> Path:
    """The files of a commit, as a tar file."""
    path = folder / f"e5jax-{found[:SHORT]}.tar"
    _git("archive", "--format=tar", f"--output={path}", found)
    return path


def here(request: Request, shell: Shell) -> Path:
    """The code of the request's commit, below its root on this machine's disks, which all of its hosts see."""
    place = Path.home() / code(request.root, request.commit)
    if place.is_dir() and not shell.dry:
        return place
    new = place.with_name(f"{place.name}.{os.getpid()}")
    if not shell.dry:
        new.mkdir(parents=True)
    shell.must(
        Step(
            "here",
            (
                "git",
                "-C",
                str(ROOT),
                "archive",
                "--format=tar",
                f"--output={new}.tar",
                request.commit,
            ),
        )
    )
    shell.must(Step("here", ("tar", "-x", "-C", str(new), "-f", f"{new}.tar")))
    if not shell.dry:
        new.rename(place)
        new.with_name(f"{new.name}.tar").unlink()
    return place


def code(root: str, found: str) -> str:
    """Where the code of a commit is on a host."""
    return f"{root.removeprefix('~/')}/code/{found[:SHORT]}"


def receive(root: str, found: str, file: str = "") -> str:
    """A shell command that unpacks a tar file, from stdin if none is named; nothing where the commit is there already.

    Hosts may share the folder, and do this at the same time.
    """
    place = shlex.quote(code(root, found))
    part = f"{place}.$$"
    source, spare = (f" -f {shlex.quote(file)}", "true") if file else ("", "cat >/dev/null")
    move = f"{{ mv -T {part} {place} || {{ rm -r {part}; test -d {place}; }}; }}"
    return f"umask 077; if test -d {place}; then {spare}; else mkdir -p {part} && tar -x{source} -C {part} && {move}; fi"


def inside(root: str, found: str, *argv: str) -> str:
    """A shell command that runs something in the code of a commit."""
    return f"cd {shlex.quote(code(root, found))} && {shlex.join(argv)}"


def _git(*words: str, around: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=ROOT,
        env=around,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"git {words[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
