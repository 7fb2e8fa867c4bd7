"""Copies code to the machines of a run by commit, so that later local changes do not matter."""

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
SHORT = 12  # digits of an abbreviated commit


def commit(allow_dirty: bool, file: str, *, dry: bool = False) -> str:
    """The commit to stage. Raises ConfigError if the working tree differs or `file` is not in it.

    With `allow_dirty` it is a new commit of the working tree that is on no branch; with `dry` HEAD.
    """
    need("git")
    if not (ROOT / ".git").exists():
        raise ConfigError(
            f"{ROOT} is not a git checkout, but code is staged by commit; clone the repository"
        )
    if dry:
        return _git("rev-parse", "HEAD").strip()
    changed = _git("status", "--porcelain").splitlines()
    if changed and not allow_dirty:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        names = ", ".join(line[3:] for line in changed[:3])
        raise ConfigError(
            f"the working tree has uncommitted changes ({names}{more}): commit them, or stage them "
            "with --allow-dirty"
        )
    commit_id = _working_tree() if changed else _git("rev-parse", "HEAD").strip()
    if (
        file
        and not Path(file).is_absolute()
        and not _git("ls-tree", "--name-only", commit_id, "--", file).strip()
    ):
        raise ConfigError(
            f"{file} is not in commit {commit_id[:SHORT]}: commit it, or add --allow-dirty"
        )
    return commit_id


def _working_tree() -> str:
    """A commit of all files that git does not ignore; leaves the index unchanged."""
    with tempfile.TemporaryDirectory() as folder:
        index = {**os.environ, "GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git("read-tree", "HEAD", environment=index)
        _git("add", "--all", environment=index)
        tree = _git("write-tree", environment=index).strip()
    author = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "e5jax"), ("EMAIL", "e5jax@localhost"))
    }
    words = ("commit-tree", tree, "-p", "HEAD", "-m", "staged working tree")
    return _git(*words, environment={**os.environ, **author}).strip()


def archive(commit_id: str, folder: Path) -> Path:
    """Writes the files of a commit to a tar file in `folder`."""
    path = folder / f"e5jax-{commit_id[:SHORT]}.tar"
    _git("archive", "--format=tar", f"--output={path}", commit_id)
    return path


def here(request: Request, shell: Shell) -> Path:
    """Stages the request's commit on a disk that all hosts share, and returns its folder."""
    folder = Path.home() / code(request.root, request.commit)
    if folder.is_dir() and not shell.dry:
        return folder
    new = folder.with_name(f"{folder.name}.{os.getpid()}")
    if not shell.dry:
        new.mkdir(parents=True)
    archive_options = ("archive", "--format=tar", f"--output={new}.tar", request.commit)
    shell.must(Step("here", ("git", "-C", str(ROOT), *archive_options)))
    shell.must(Step("here", ("tar", "-x", "-C", str(new), "-f", f"{new}.tar")))
    if not shell.dry:
        new.rename(folder)
        new.with_name(f"{new.name}.tar").unlink()
    return folder


def code(root: str, commit_id: str) -> str:
    """The folder with the code of a commit on a host."""
    return f"{root.removeprefix('~/')}/code/{commit_id[:SHORT]}"


def receive(root: str, commit_id: str, file: str = "") -> str:
    """A shell command that unpacks a tar file (empty: standard input) unless the commit is there.

    Hosts that share the folder may run it at the same time.
    """
    folder = shlex.quote(code(root, commit_id))
    part = f"{folder}.$$"
    source, skip = (f" -f {shlex.quote(file)}", "true") if file else ("", "cat >/dev/null")
    move = f"{{ mv -T {part} {folder} || {{ rm -r {part}; test -d {folder}; }}; }}"
    unpack = f"mkdir -p {part} && tar -x{source} -C {part} && {move}"
    return f"umask 077; if test -d {folder}; then {skip}; else {unpack}; fi"


def inside(root: str, commit_id: str, *argv: str) -> str:
    """A shell command that runs `argv` in the code of a commit."""
    return f"cd {shlex.quote(code(root, commit_id))} && {shlex.join(argv)}"


def _git(*words: str, environment: Mapping[str, str] | None = None) -> str:
    result = subprocess.run(
        ["git", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode:
        raise ConfigError(f"git {words[0]}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout
