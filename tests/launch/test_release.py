"""What is shipped: a wheel that runs and knows its commit, locks that fit setup.py, scripts without a fault, an image."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from e5jax import versions
from tests.config.test_load import ROOT

GIT = (ROOT / ".git").exists()
LOCKS = sorted((ROOT / "launch" / "locks").glob("*.txt"))
OF = {
    "cpu": ("eval", "gcs", "synth"),
    "cuda": ("eval", "gcs", "synth", "cuda"),
    "tpu": ("eval", "gcs", "synth", "tpu"),
}

NAKED = "from launch.launcher.__main__ import main; sys.exit(main(sys.argv[1:]))"


def run(*words: str, where: Path = ROOT, **more: str) -> str:
    around = {**os.environ, **more}
    return subprocess.run(
        words, cwd=where, env=around, capture_output=True, text=True, check=True, timeout=200
    ).stdout


@pytest.mark.skipif(not GIT, reason="needs a checkout")
def test_a_wheel_from_a_clean_build_runs_and_knows_its_commit(tmp_path):
    source, site = tmp_path / "source", tmp_path / "site"
    run("git", "clone", "--quiet", "--shared", str(ROOT), str(source))
    tracked = [
        Path(name) for name in run("git", "ls-files").splitlines() if (ROOT / name).is_file()
    ]
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(
        *pip,
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        f"--wheel-dir={tmp_path}",
        str(source),
    )
    (wheel,) = tmp_path.glob("e5jax-*.whl")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", f"--target={site}", str(wheel))
    commit = run("git", "rev-parse", "HEAD").strip()
    said = run(sys.executable, "-m", "e5jax", "--version", where=tmp_path, PYTHONPATH=str(site))
    assert re.search(rf"\(commit {commit}\+?\)", said), said
    assert [
        str(name) for name in tracked if name.parts[0] == "e5jax" and not (site / name).is_file()
    ] == []


@pytest.mark.skipif(not GIT, reason="needs a checkout")
def test_an_archive_knows_its_commit(tmp_path):
    run(
        "git",
        "archive",
        "--format=tar",
        f"--output={tmp_path / 'a.tar'}",
        "HEAD",
        "e5jax/commit.txt",
    )
    assert run("tar", "-x", "-O", "-f", str(tmp_path / "a.tar")) == run("git", "rev-parse", "HEAD")


def test_the_commit_is_said_where_it_is_known(tmp_path, monkeypatch):
    stamp = tmp_path / "e5jax" / "commit.txt"
    stamp.parent.mkdir()
    stamp.write_text("c0ffee\n")
    monkeypatch.setattr(versions, "STAMP", stamp)
    assert versions.commit() == "c0ffee"
    stamp.write_text("$Format:%H$\n")
    assert (
        re.fullmatch(r"[0-9a-f]{40}\+?", versions.commit())
        if GIT
        else versions.commit() == versions.UNKNOWN
    )


def extras() -> dict[str, list[str]]:
    """What setup.py asks for, without running it: its lists of texts and the table of extras."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    lists: dict[str, list[str]] = {}

    def texts(node: ast.expr) -> list[str]:
        assert isinstance(node, ast.List), ast.unparse(node)
        found: list[str] = []
        for one in node.elts:
            found += lists[one.value.id] if isinstance(one, ast.Starred) else [one.value]
        return found

    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            lists[node.targets[0].id] = texts(node.value)
    call = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    table = next(word.value for word in call.keywords if word.arg == "extras_require")
    return {
        key.value: lists[value.id] if isinstance(value, ast.Name) else texts(value)
        for key, value in zip(table.keys, table.values, strict=True)
    }


def pins(lock: Path) -> dict[str, Requirement]:
    """Packages of a lock. Every one has one version and hashes."""
    entries = re.findall(
        r"^([a-z0-9].*?)(?<!\\)$", lock.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    found = {}
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
        requirement = Requirement(entry.split("\\")[0].strip())
        assert re.fullmatch(r"==[\w.+]+", str(requirement.specifier)), entry
        found[requirement.name.lower().replace("_", "-")] = requirement
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.stem for lock in LOCKS])
def test_a_lock_pins_by_hash_what_setup_asks_for(lock):
    have = pins(lock)
    core = [
        line
        for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if line and line[0] != "#"
    ]
    for text in [*core, *(text for extra in OF[lock.stem] for text in extras()[extra])]:
        wanted = Requirement(text)
        pinned = have[wanted.name.lower().replace("_", "-")]
        (version,) = (one.version for one in pinned.specifier)
        assert wanted.specifier.contains(version), (
            f"{lock.name} has {pinned}, and {text} is asked for: launch/lock.sh {lock.stem}"
        )


@pytest.mark.parametrize("lock", LOCKS, ids=[lock.stem for lock in LOCKS])
def test_only_machines_with_cuda_get_its_libraries(lock):
    text = lock.read_text(encoding="utf-8")
    theirs = re.findall(r"^(?:nvidia-|cuda-|triton==|jax-cuda)\S+", text, re.MULTILINE)
    assert bool(theirs) == (lock.stem == "cuda"), theirs
    own_index = text.startswith(
        "--extra-index-url https://download.pytorch.org/whl/cpu\n"
    )  # of builds without them
    assert own_index == bool(re.search(r"^torch==[\d.]+\+cpu ", text, re.MULTILINE)) == (not theirs)


def test_there_is_a_lock_for_every_platform():
    assert [lock.stem for lock in LOCKS] == sorted(OF)


@pytest.mark.skipif(
    shutil.which("shellcheck") is None, reason="needs shellcheck: apt install shellcheck"
)
def test_scripts_are_clean():
    scripts = sorted(map(str, [*(ROOT / "launch").glob("*.sh"), ROOT / ".ci" / "run"]))
    assert run("shellcheck", *scripts) == ""


def test_an_image_is_made_of_files_that_are_there():
    lines = (ROOT / "launch" / "Containerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    for platform in OF:
        assert all((ROOT / path.replace("${PLATFORM}", platform)).exists() for path in copied)
    assert "--require-hashes" in "".join(lines)


@pytest.mark.skipif(not GIT, reason="needs a checkout")
def test_a_machine_without_any_package_launches():
    words = (
        "train",
        "--target=tpu-vm",
        "--accelerator=v5litepod-16",
        "--zone=us-west4-a",
        "--dry-run",
    )
    said = run(
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); {NAKED}",
        *words,
    )
    assert "gcloud compute tpus tpu-vm create quickstart" in said
