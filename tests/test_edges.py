"""Every path of every command may be wrong in every way: the answer is one line with the path, an exit code, no traceback.

The suite tries some, drawn by E5JAX_FAULT_SEED; E5JAX_PATHS=all tries all, in some minutes.
"""

import contextlib
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from e5jax.cli import main
from e5jax.errors import CONFIG as WRONG
from e5jax.errors import DONE, ERROR
from tests.config.test_load import ROOT
from tests.mine import small

SEED = int(os.environ.get("E5JAX_FAULT_SEED", "0"))
ALL = os.environ.get("E5JAX_PATHS") == "all"
SOME = 60  # of the cases, in the suite
CONFIG = """
from e5jax.config import *

def get_config():
    return Config(
        stages=("train", "export"),
        data=Data(files=("{folder}/records.jsonl",)),
        tokens=Tokens(tokenizer="{folder}/model/tokenizer.json", limit=16),
        model=Model(scratch=Scratch(hidden=32, ff=64, layers=2, heads=4, kv_heads=2, head_size=8), dtype="float32"),
        batch=Batch(queries=8, negatives=0, chunks=2, shards=8),
        optim=Optim(learning_rate=1e-2, steps=2, warmup_steps=0),
    )
"""
SYNTH = """
import runpy

def get_config():
    return runpy.run_path("{root}/configs/synth_demo.py")["get_config"]()
"""
MODEL, TASK, OUTPUT, TOKENIZER = (
    "--model={at}/model",
    "{at}/task",
    "--output={out}",
    "{at}/model/tokenizer.json",
)
TEXTS, RECORDS, CORPUS = (
    "--input={at}/texts.jsonl",
    "--input={at}/records.jsonl",
    "--corpus={at}/corpus.jsonl",
)
CONFIG_FILE, WORKDIR = "--config={at}/config.py", "--workdir={out}"
BASE = ("--config.model.scratch=none", "--config.tokens.tokenizer=")
# The words of each command. One after the other, what follows the = of each word with a place in it is replaced by a wrong path.
COMMANDS = {
    "train": (
        "train",
        CONFIG_FILE,
        WORKDIR,
        f"--config.tokens.tokenizer={TOKENIZER}",
        "--config.checkpoint.folder={out}",
    ),
    "train files": ("train", CONFIG_FILE, WORKDIR, "--config.data.files={at}/records.jsonl"),
    "train base": ("train", CONFIG_FILE, WORKDIR, *BASE, "--config.model.base={at}/model"),
    "export": ("export", "--workdir={at}/run", OUTPUT),
    "checkpoints": ("checkpoints", "list", "--workdir={at}/run"),
    "eval": ("eval", MODEL, f"--tasks={TASK}", OUTPUT, "--vectors={out}"),
    "eval jax": ("eval", MODEL, f"--tasks={TASK}", OUTPUT, "--backend=jax"),
    "eval texts": ("eval", "--texts", f"--tasks={TASK}", OUTPUT),
    "eval report": ("eval", "--report", "--output={at}/run"),
    "compact": ("compact", MODEL, f"--task={TASK}", OUTPUT, "--rows=100"),
    "encode npy": ("encode", MODEL, TEXTS, "--output={out}.npy"),
    "encode parquet": ("encode", MODEL, TEXTS, "--output={out}.parquet"),
    "encode safetensors": ("encode", MODEL, TEXTS, "--output={out}.safetensors"),
    "calibrate": ("calibrate", MODEL, TEXTS),
    "mine": ("mine", MODEL, RECORDS, CORPUS, OUTPUT),
    "mine scores": (
        "mine",
        MODEL,
        RECORDS,
        CORPUS,
        OUTPUT,
        "--scores={at}/scores.jsonl",
        "--teacher-min-score=0",
    ),
    "synth": ("synth", "--config={at}/synth.py", OUTPUT, "--dry-run"),
    "convert": ("data", "convert", RECORDS, "--output={out}.jsonl"),
    "clean": ("data", "clean", RECORDS, OUTPUT, "--evaluation={at}/texts.jsonl"),
    "inspect": ("data", "inspect", RECORDS, "--output={out}.html", f"--tokenizer={TOKENIZER}"),
    "validate": ("data", "validate", RECORDS),
    "validate config": ("data", "validate", CONFIG_FILE),
    "prepare": ("data", "prepare", "synthetic", "--from={at}/records.jsonl", OUTPUT),
    "shares": ("data", "shares", CONFIG_FILE),
    "plan": ("plan", CONFIG_FILE, f"--config.tokens.tokenizer={TOKENIZER}", "--topology=cpu:8"),
    "doctor": ("doctor", "--workdir={out}"),
}
WAYS = (
    *("missing", "below a file", "folder", "file", "bytes", "long", "circle", "dangling"),
    *("forbidden", "forbidden folder", "not writable", "no disk"),
)
# Files that are not text are said to be wrong by `file:line`, and doctor says what it found on standard output.
OWN_WORDS = ("validate", "doctor")


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    """Healthy inputs of every kind."""
    folder = tmp_path_factory.mktemp("material")
    small.model_folder(folder / "model")
    small.task(folder)
    write(folder / "texts.jsonl", *({"id": str(i), "text": f"text {i}"} for i in range(4)))
    write(folder / "scores.jsonl", {"query": "a", "passage": "b", "score": 1.0})
    (folder / "synth.py").write_text(SYNTH.format(root=ROOT), encoding="utf-8")
    task = folder / "task"
    (task / "qrels").mkdir(parents=True)
    write(
        task / "corpus.jsonl",
        {"_id": "d", "title": "", "text": "a document"},
        {"_id": "e", "title": "", "text": "another"},
    )
    write(task / "queries.jsonl", {"_id": "q", "text": "a query"})
    (task / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq\td\t1\n", encoding="utf-8"
    )
    (folder / "run").mkdir()
    return folder


@pytest.fixture
def at(material, tmp_path) -> Path:
    """A copy of the inputs."""
    folder = tmp_path / "at"
    shutil.copytree(material, folder)
    (folder / "config.py").write_text(CONFIG.format(folder=folder), encoding="utf-8")
    return folder


def write(path: Path, *lines: dict) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def wrong(way: str, folder: Path, suffix: str) -> Path:
    """A path that is wrong in this way."""
    path = folder / f"wrong{suffix}"
    if way == "below a file":
        return folder / "texts.jsonl" / path.name
    if way == "long":
        return folder / ("x" * 300 + suffix)
    if way == "no disk":
        return Path("/proc/e5jax", path.name)
    if way in ("circle", "dangling"):
        path.symlink_to(path if way == "circle" else folder / "nowhere")
    elif way in ("folder", "forbidden folder", "not writable"):
        path.mkdir({"folder": 0o700, "forbidden folder": 0, "not writable": 0o500}[way])
        return path if way == "folder" else path / path.name
    elif way != "missing":
        path.write_bytes(b"\xff\xfe\x00words\n" if way == "bytes" else b"words\n")
        path.chmod(0 if way == "forbidden" else 0o600)
    return path


def cases() -> list[tuple[str, int, str]]:
    """(command, which of its words, way to be wrong)."""
    places = [
        (name, number)
        for name, words in COMMANDS.items()
        for number, word in enumerate(words)
        if "{" in word
    ]
    every = [(name, number, way) for name, number in places for way in WAYS]
    return every if ALL else sorted(Random(SEED).sample(every, SOME))


class Capabilities:
    """Linux's capset(2) for the calling thread; root may read and write everything only by CAP_DAC_OVERRIDE."""

    OVERRIDES = 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

    def __init__(self) -> None:
        self._header = (ctypes.c_uint32 * 2)(
            0x20080522, 0
        )  # _LINUX_CAPABILITY_VERSION_3, this thread
        self._libc = ctypes.CDLL(None, use_errno=True)

    def set(self, keep: int) -> None:
        """Leaves these of the effective capabilities."""
        data = (
            ctypes.c_uint32 * 6
        )()  # effective, permitted, inheritable of the first 32; the same of the others
        assert self._libc.capget(self._header, data) == 0
        data[0] = data[1] & keep
        assert self._libc.capset(self._header, data) == 0


@contextlib.contextmanager
def permissions_bind() -> Iterator[None]:
    """Inside, the mode of a file binds root, too."""
    if os.geteuid() != 0:
        yield
        return
    capabilities = Capabilities()
    capabilities.set(~Capabilities.OVERRIDES & 0xFFFFFFFF)
    try:
        yield
    finally:
        capabilities.set(0xFFFFFFFF)


@pytest.mark.parametrize(("name", "number", "way"), cases())
def test_a_wrong_path_is_one_line(name, number, way, at, capsys):
    template = COMMANDS[name][number]
    option, _, place = template.partition("=")
    path = wrong(way, at, Path(place).suffix if "." in place else "")
    words = [word.format(at=at, out=at / "out") for word in COMMANDS[name]]
    words[number] = f"{option}={path}"
    with permissions_bind():
        code = main(words)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert code in (DONE, WRONG, ERROR)
    if code == DONE or name.startswith(OWN_WORDS):
        return
    (line,) = (line for line in printed.err.splitlines() if line.startswith("e5jax: "))
    assert str(path) in printed.err or str(path.parent) in line


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Inside, no file can grow beyond so many bytes, as on a disk that becomes full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "name",
    [
        "convert",
        "clean",
        "inspect",
        "prepare",
        "encode npy",
        "encode parquet",
        "encode safetensors",
    ],
)
def test_a_result_that_does_not_fit_is_one_line(name, at, capsys):
    words = [word.format(at=at, out=at / "out") for word in COMMANDS[name]]
    with small_files(500):
        assert main(words) == ERROR
    (line,) = (
        line
        for line in capsys.readouterr().err.splitlines()
        if "e5jax" in line or "Traceback" in line
    )
    assert line.startswith(f"e5jax: {at}/")
    assert "/out" in line or "/.out" in line


def test_a_checkpoint_that_does_not_fit_is_one_line(at):
    words = [word.format(at=at, out=at / "out") for word in COMMANDS["train files"]]
    command = [sys.executable, "-m", "e5jax", *words]
    with small_files(30_000):  # the process inherits it
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ERROR
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        f"e5jax: checkpoint 2: could not be saved in {at}/out/checkpoints ("
    )
