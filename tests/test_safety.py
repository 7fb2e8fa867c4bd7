"""What is read is never run: no code of ours could, files that want to be are refused or ignored, names stay in their folder."""

import ast
import contextlib
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from e5jax.checkpoint import manifest
from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.checkpoint.manifest import DamagedError
from e5jax.checkpoint.retention import Retention
from e5jax.config import Guard
from e5jax.config.mixture import Dataset, Mixture, check_mixture
from e5jax.data.records import Example, Metrics
from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.inference.shards import embed
from e5jax.model import hf_weights
from e5jax.train.inputs import Inputs, read_inputs
from e5jax.train.skipped import Skipped
from e5jax.workdir.directory import Workdir, read_config
from tests.train.test_loop import lora_run, place

__all__ = ["place"]  # a fixture
ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for part in ("e5jax", "configs", "benchmarks", "launch")
    for path in (ROOT / part).rglob("*.py")
)

# Formats that are programs, and what runs a string.
MODULES = {
    "pickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
    "pty",
}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {
    *(
        "os.system",
        "os.popen",
        "torch.load",
        "joblib.load",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
    ),
    *(
        "yaml.load",
        "yaml.load_all",
        "yaml.unsafe_load",
        "yaml.unsafe_load_all",
        "yaml.full_load",
        "yaml.full_load_all",
    ),
    *(
        "pandas.read_pickle",
        "pd.read_pickle",
        "runpy.run_path",
        "runpy.run_module",
        "importlib.import_module",
    ),
}
ONLY = {"shell": False, "trust_remote_code": False, "allow_pickle": False, "weights_only": True}
MAY = {
    (
        "e5jax/config/load.py",
        "runpy.run_path",
    ),  # a configuration is Python, and whoever names the file is who runs the command
    ("e5jax/train/metrics.py", "importlib.import_module"),  # of a name that stands there
    ("e5jax/storage.py", "importlib.import_module"),  # of names that stand there
}


def dangers(source: str) -> Iterator[str]:
    """What in a program could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (
                    f"{module}.{name.name}" for name in names if f"{module}.{name.name}" in METHODS
                )
                yield from [module] if module.partition(".")[0] in MODULES else []
            case ast.Name(id=name, ctx=ast.Load()) if name in CALLS:
                yield name
            case ast.Attribute() if (name := ast.unparse(node)) in METHODS:
                yield name
            case (
                ast.keyword(arg=str(name), value=value)
                | ast.Tuple(elts=[ast.Constant(value=str(name)), value])
            ):
                yield from switched(name, value)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    yield from switched(key.value, value) if isinstance(key, ast.Constant) else ()


def switched(name: object, value: ast.expr) -> Iterator[str]:
    if name in ONLY and not (isinstance(value, ast.Constant) and value.value is ONLY[str(name)]):
        yield f"{name}={ast.unparse(value)}"


def test_nothing_of_ours_runs_what_it_reads():
    assert len(SOURCES) > 200
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in SOURCES
    }
    assert {(name, danger) for name, source in sources.items() for danger in dangers(source)} == MAY
    for script in (ROOT / "launch").glob("*.sh"):
        assert not re.search(
            r"(^|[;&|(]\s*)eval\s|\bsh -c\b", script.read_text(encoding="utf-8"), re.MULTILINE
        ), script


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "import os, marshal as m",
            "from dill import loads",
            "from joblib.memory import x",
        ),
        *(
            "eval(x)",
            "f = exec",
            "compile(x, y, z)",
            "__import__(x)",
            "os.system(x)",
            "from os import system",
        ),
        *(
            "torch.load(x)",
            "torch.load(x, weights_only=True)",
            "yaml.load(x)",
            "importlib.import_module(x)",
        ),
        *(
            "run(x, shell=True)",
            "run(x, shell=flag)",
            "np.load(x, allow_pickle=True)",
            "f(weights_only=False)",
        ),
        *(
            "f(trust_remote_code=True)",
            "f(**{'trust_remote_code': 1})",
            "x = [('allow_pickle', True)]",
        ),
    ],
)
def test_the_check_sees_what_it_looks_for(line):
    assert list(dangers(line))


@pytest.mark.parametrize(
    "line",
    [
        "np.load(x)",
        "f(shell=False)",
        "evaluate(x)",
        "model.eval()",
        "re.compile(x)",
        "yaml.safe_load(x)",
    ],
)
def test_the_check_lets_pass_what_is_harmless(line):
    assert not list(dangers(line))


# --- files that want to be run ---------------------------------------------------------------------------------


class Bomb:
    """Unpickled it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(tmp_path):
    """A place where nothing may be when the test is over."""
    where = tmp_path / "canary"
    yield where
    assert not where.exists()


@pytest.fixture
def bomb(canary) -> bytes:
    return pickle.dumps(Bomb(canary))


def test_the_bomb_works(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "here")))  # noqa: S301
    assert (tmp_path / "here").is_dir()


def plant(folder: Path, bomb: bytes, canary: Path) -> None:
    """All that has ever been run by somebody who only wanted to load a model, beside what is there."""
    code = f"import os\nos.mkdir({str(canary)!r})\nclass Evil: pass\n"
    for name in (
        "pytorch_model.bin",
        "model.pt",
        "model.pkl",
        "adapter_model.bin",
        "model.npy",
        "optimizer.pt",
        "tokenizer.pkl",
    ):
        (folder / name).write_bytes(bomb)
    for name in (
        "modeling_evil.py",
        "configuration_evil.py",
        "tokenization_evil.py",
        "handler.py",
        "setup.py",
        "conftest.py",
    ):
        (folder / name).write_text(code)
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        kinds = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoModelForCausalLM")
        values |= {
            "auto_map": dict.fromkeys(kinds, "modeling_evil.Evil"),
            "trust_remote_code": True,
            "_attn_implementation_internal": "evil/kernel",
            "attn_implementation": "evil/kernel",
            "custom_pipelines": {"evil": {"impl": "handler.Evil"}},
        }
        (folder / name).write_text(json.dumps(values))
    modules = [{"idx": 0, "name": "0", "path": "", "type": "modeling_evil.Evil"}]
    (folder / "modules.json").write_text(json.dumps(modules))


def inputs_of(base: Path, place: Path, data: Path | None = None) -> Inputs:
    run = lora_run(place)
    return read_inputs(run, [data or place / "train.jsonl"], None, str(base))


@pytest.fixture
def base(place, tmp_path) -> Path:
    return Path(shutil.copytree(place / "base", tmp_path / "base"))


def test_programs_in_a_base_folder_are_as_good_as_not_there(base, place, bomb, canary, monkeypatch):
    before = Embedder.from_pretrained(base).encode(["read the file"])
    plant(base, bomb, canary)
    monkeypatch.chdir(base)
    monkeypatch.syspath_prepend(base)  # whoever imports by a name from a file would find it
    for read in (Embedder.from_pretrained, lambda folder: inputs_of(folder, place)):
        with pytest.raises(ConfigError, match=r"module 'modeling_evil\.Evil' is not supported"):
            read(base)
    (base / "modules.json").unlink()  # which names a program; what is left does not mean one
    assert np.array_equal(Embedder.from_pretrained(base).encode(["read the file"]), before)
    assert inputs_of(base, place).spec == inputs_of(place / "base", place).spec


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.safetensors.index.json", "tokenizer.json", "config.json"]
)
def test_a_program_in_place_of_a_part_of_the_base_is_refused(name, base, place, bomb):
    (base / name).write_bytes(bomb)
    with pytest.raises(ConfigError, match=re.escape(name)):
        Embedder.from_pretrained(base)
    with pytest.raises(ConfigError, match=re.escape(name)):
        hf_weights.headers(inputs_of(base, place).base or base)


@pytest.mark.parametrize("name", ["train.jsonl", "train.pkl", "train.npy", "train.pt", "train.py"])
def test_a_program_in_place_of_data_is_refused(name, place, bomb, tmp_path):
    (tmp_path / name).write_bytes(bomb)
    with pytest.raises(ConfigError, match=re.escape(name)):
        inputs_of(place / "base", place, tmp_path / name)


def test_a_program_in_place_of_a_runs_configuration_is_refused(bomb, tmp_path):
    (tmp_path / "config.json").write_bytes(bomb)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(Workdir(tmp_path))


def test_a_program_in_place_of_vectors_is_made_anew(bomb, canary, tmp_path):
    class Model:
        def encode(self, texts):
            return np.ones((len(texts), 4), np.float32)

    made = np.ones((2, 4), np.float32)
    embed(Model().encode, ["a", "b"], 2, "identity", tmp_path / "queries", 8)
    (file,) = tmp_path.glob("queries-*/*.npy")
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    for content in (
        bomb,
        objects.read_bytes(),
        file.read_bytes()[:-1],
        file.read_bytes()[:90],
        b"",
    ):
        file.write_bytes(content)
        (found,) = embed(Model().encode, ["a", "b"], 2, "identity", tmp_path / "queries", 8)
        assert np.array_equal(found, made)


def test_a_program_in_a_checkpoint_is_found_and_not_run_even_if_the_manifest_is_forged(
    bomb, canary, tmp_path
):
    state = {"a": np.arange(64.0)}
    with Checkpoints(tmp_path, Retention(9)) as checkpoints:
        checkpoints.save(1, state, state, {})
    files = sorted(
        path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()
    )
    assert len(files) > 8
    for file in files:
        shutil.copytree(tmp_path / "1", tmp_path / "2")
        (tmp_path / "2" / file).write_bytes(bomb)
        if file.name != manifest.NAME:
            with pytest.raises(DamagedError, match=file.name):
                manifest.check(tmp_path / "2")
            manifest.write(tmp_path / "2", {"parameters": {"a": [64]}})
            with (
                Checkpoints(tmp_path) as checkpoints,
                contextlib.suppress(Exception),
            ):  # whatever Orbax makes of it
                checkpoints.restore(2, state, state)
        assert not canary.exists(), file
        shutil.rmtree(tmp_path / "2")


COMPILES = """
import hashlib, jax, numpy
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
found = jax.jit(lambda x: jax.nn.softmax(jax.numpy.tanh(x @ x)))(numpy.linspace(0, 1, 10_000).reshape(100, 100))
print(hashlib.sha256(numpy.asarray(found).tobytes()).hexdigest(), len(hits))
"""


def compiled(cache: Path) -> list[str]:
    """(hash of what was computed, programs that came out of the cache)."""
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = os.environ | settings | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", COMPILES]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.split()


def test_a_cache_of_programs_that_is_damaged_or_cannot_be_written_changes_no_number(bomb, tmp_path):
    cache = tmp_path / "cache"
    first, again = compiled(cache), compiled(cache)
    assert first[0] == again[0]
    assert (int(first[1]), int(again[1]) > 0) == (0, True)
    entries = sorted(cache.glob("*-cache"))
    for number, entry in enumerate(entries):
        whole = entry.read_bytes()
        # Not a flipped bit: JAX has no checksum for what it keeps, and takes some of those programs.
        entry.write_bytes((whole[: len(whole) // 2], bomb, b"")[number % 3])
    assert compiled(cache) == first
    (tmp_path / "file").touch()
    assert compiled(tmp_path / "file" / "cache") == first


# --- names that lead elsewhere ---------------------------------------------------------------------------------

PARTS = (
    *(
        "..",
        ".",
        "/",
        "\\",
        "~",
        "~root",
        "C:",
        "//host/share",
        "\0",
        "\n",
        " ",
        "-rf",
        "--",
        "%2e%2e",
        "%00",
        "$HOME",
        "`id`",
    ),
    *(
        "．．",
        "／",
        "∕",
        "‥",
        "\u202e",
        "\u200b",
        "e\u0301",
        "é",
        "CON",
        "nul.txt",
        "a" * 300,
        "é" * 200,
        "etc",
        "passwd",
        "x",
    ),
    *(
        "file:",
        "gs:",
        ".hidden",
        "x.json",
        "x/",
        "/x",
        "*",
        "?",
        "|",
        "<b>",
        "'",
        '"',
        ";",
        "&&",
        "{0}",
        "%s",
        "\ud800",
    ),
)
NAMES = 2_000


def names(seed: int = 0) -> Iterator[str]:
    """Two thousand of them, all different."""
    random, made = np.random.default_rng(seed), set()
    while len(made) < NAMES:
        name = random.choice(["", "/", os.sep.join([".."] * 5) + "/"]) + "".join(
            random.choice(PARTS, random.integers(1, 5))
        )
        if name not in made:
            made.add(name)
            yield str(name)


class _Watched:
    """Where files were opened while it was on. Python has no way to take an audit hook away again."""

    on = False
    read: set[str] = set()  # noqa: RUF012  one for all
    written: set[str] = set()  # noqa: RUF012


def _note(event: str, arguments: tuple) -> None:
    if not _Watched.on:
        return
    if event == "open" and isinstance(arguments[0], str):
        flags = arguments[2] or 0
        (_Watched.written if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else _Watched.read).add(
            arguments[0]
        )
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.symlink", "os.link", "os.truncate"):
        _Watched.written |= {os.fspath(path) for path in arguments if isinstance(path, str | Path)}


sys.addaudithook(_note)


@contextlib.contextmanager
def watched(read: bool, *allowed: Path) -> Iterator[None]:
    """Inside, nothing is written outside of these folders, nor read if that is not allowed."""
    _Watched.read.clear()
    _Watched.written.clear()
    _Watched.on = True
    try:
        yield
    finally:
        _Watched.on = False
    opened = _Watched.written if read else _Watched.written | _Watched.read
    roots = [path.resolve() for path in allowed]
    outside = [
        path
        for path in opened
        if not any(Path(os.path.normpath(path)).is_relative_to(root) for root in roots)
    ]
    assert not outside


def test_an_index_names_no_file_outside_its_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    index = folder / "model.safetensors.index.json"
    outside = tmp_path / "x.json"
    outside.write_text("{}")
    with watched(False, folder):
        for name in names():
            index.write_text(json.dumps({"weight_map": {"norm.weight": name}}))
            try:
                found = hf_weights.files(folder)
            except ConfigError:
                continue
            assert all(path.parent == folder for path in found)


def test_a_manifest_names_no_file_outside_its_folder(tmp_path):
    for kind, some in {"all": list(names()), "one": ["../../etc/passwd"]}.items():
        folder = tmp_path / kind
        folder.mkdir()
        files = {name: [1, "0" * 64] for name in some}
        body = json.dumps({"format": manifest.FORMAT, "files": files, "facts": {}})
        (folder / manifest.NAME).write_text(
            f"{body}\n{hashlib.sha256(body.encode()).hexdigest()}\n"
        )
        with watched(False, folder), pytest.raises(DamagedError):
            manifest.check(folder)


def test_names_in_data_and_configuration_make_no_file_outside_the_run(place, tmp_path):
    good = [name for name in names() if not set(name) & {"\0", "\ud800"} and name.strip()]
    lines = [
        Example(name, name, (f"{name} a",), (f"{name} b",), name, source=name).to_json()
        for name in good
    ]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(f"{line}\n" for line in lines))
    inside = tmp_path / "run"
    with watched(True, inside):
        for name in names():
            with (
                contextlib.nullcontext()
                if re.fullmatch("[a-z]+", name)
                else pytest.raises(ConfigError)
            ):
                check_mixture(Mixture({name: Dataset((str(data),))}), 16, {}, "config")
        inputs = inputs_of(place / "base", place, data)
        look = Skipped(Workdir(inside).skipped, Guard(), inputs.batch_builder)
        bad = Metrics(*[np.float32(0)] * len(Metrics._fields))._replace(in_a_row=np.int32(1))
        for number in range(1, 4):
            look.look(number, inputs.batches[number - 1], "hash", bad)
    assert len(list(inside.rglob("*.jsonl"))) == 3
