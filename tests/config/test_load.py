"""Config files and overrides. The wrong ones are a table that `test_main` puts through the command line as well."""

import ast
import dataclasses
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import e5jax
from e5jax.config import Config, Lora
from e5jax.config.load import load, load_tree
from e5jax.config.types import without_none
from e5jax.errors import ConfigError
from e5jax.synth.config import Synth

ROOT = Path(__file__).parents[2]
PAPER = str(ROOT / "configs/e5_mistral_7b.py")
QUICK = str(ROOT / "configs/quickstart.py")


def config_file(folder: Path, text: str) -> str:
    """A config file with this text, after an import of all names of `config`."""
    (folder / "mine.py").write_text(f"from e5jax.config import *\n{text}", encoding="utf-8")
    return str(folder / "mine.py")


def value(config: Config, path: str) -> object:
    for name in path.split("."):
        config = getattr(config, name)
    return config


def changed(config: Config) -> Config:
    """The paper's configuration with another `optim.steps`."""
    config.optim.steps = 5_000
    return config


RUNS = sorted(
    str(path) for path in (ROOT / "configs").glob("*.py") if not path.name.startswith("synth_")
)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: Path(path).stem)
def test_shipped_configuration_loads(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/passkey").mkdir(parents=True)
    (tmp_path / "data/passkey/tokenizer.json").write_text("{}")  # examples.passkey writes it
    assert load(path).stages


def test_paper_configuration_has_the_published_numbers():
    config = load(PAPER)
    assert (config.batch.queries, config.lora.rank, config.optim.learning_rate) == (2048, 16, 1e-4)
    assert (config.tokens.limit, config.loss.temperature, config.model.base) == (
        512,
        0.02,
        "mistralai/Mistral-7B-v0.1",
    )


@pytest.mark.parametrize(
    ("override", "path", "wanted"),
    [
        ("--config.optim.learning_rate=3e-4", "optim.learning_rate", 3e-4),
        ("--config.optim.learning_rate=1", "optim.learning_rate", 1.0),
        ("--config.batch.chunks=96", "batch.chunks", 96),
        ("--config.log.tensorboard=false", "log.tensorboard", False),
        ("--noconfig.log.tensorboard", "log.tensorboard", False),
        ("--config.data.instructions=true", "data.instructions", True),
        ("--config.data.files=('x.jsonl','y.jsonl')", "data.files", ("x.jsonl", "y.jsonl")),
        ("--config.stages=('train',)", "stages", ("train",)),
        ("--config.model.pooling=mean", "model.pooling", "mean"),
        ("--config.lora=none", "lora", None),
        ("--config.lora=None", "lora", None),
        ("--config.lora.targets=('q','v')", "lora.targets", ("q", "v")),
        ("--config.export.task=a = b", "export.task", "a = b"),
    ],
)
def test_override_sets_the_field_and_nothing_else(override, path, wanted):
    before, after = load(PAPER), load(PAPER, [override])
    found = value(after, path)
    assert found == wanted
    assert type(found) is type(wanted)
    assert value(before, path) != wanted or "instructions" in path
    *parents, name = path.split(".")
    setattr(value(after, ".".join(parents)) if parents else after, name, value(before, path))
    assert after == before


@pytest.mark.parametrize(
    ("override", "path", "wanted"),
    [
        ("--config.pretrain.optim.steps=30", "pretrain.optim.steps", 30),
        ("--config.pretrain.model.scratch.window=64", "pretrain.model.scratch.window", 64),
        ("--config.pretrain.model.scratch.window=none", "pretrain.model.scratch.window", None),
        ("--config.pretrain.model.scratch.theta=1e6", "pretrain.model.scratch.theta", 1e6),
        ("--config.data.harvest.train_pairs=500", "pretrain.data.harvest.train_pairs", 500),
    ],
)
def test_override_reaches_the_pretrain_run(override, path, wanted):
    assert value(load(QUICK, [override]), path) == wanted


def test_a_group_that_is_none_can_be_built_and_filled(tmp_path):
    path = config_file(
        tmp_path,
        "def get_config():\n    return Config(model=Model(base='a/b'), data=Data(files=('x',)), stages=('train',))\n",
    )
    assert load(path).lora is None
    assert load(path, ["--config.lora=build", "--config.lora.rank=3"]).lora == Lora(rank=3)


def test_last_of_two_overrides_counts():
    assert load(PAPER, ["--config.seed=1", "--config.seed=2"]).seed == 2


def test_files_read_one_after_the_other_share_nothing(tmp_path):
    load(PAPER)
    with pytest.raises(ConfigError, match="there is no get_config"):
        load(config_file(tmp_path, "x = 1\n"))


def test_a_variant_imports_another_file_and_changes_lines(tmp_path):
    text = f"""
import runpy

def get_config():
    config = runpy.run_path({PAPER!r})["get_config"]()
    config.optim.steps = 5_000
    return config
"""
    assert load(config_file(tmp_path, text)) == changed(load(PAPER))


# What is wrong -> (config file or its text, overrides, what the message must name: field or file, value, fix).
WRONG: dict[str, tuple[str, list[str], list[str]]] = {
    "misspelt field": (
        PAPER,
        ["--config.optim.lerning_rate=1"],
        ["config.optim", "'lerning_rate'", "did you mean learning_rate?"],
    ),
    "misspelt field of pretrain": (
        QUICK,
        ["--config.pretrain.optim.stps=1"],
        ["config.pretrain.optim", "'stps'", "mean steps?"],
    ),
    "unknown field": (PAPER, ["--config.zzz=1"], ["config ", "'zzz'", "it has seed, data"]),
    "field of a number": (PAPER, ["--config.optim.steps.x=1"], ["optim.steps", "no fields"]),
    "field of None": (
        PAPER,
        ["--config.model.scratch.hidden=3"],
        ["model.scratch.hidden", "None", "scratch=build"],
    ),
    "override without value": (PAPER, ["--config.seed"], ["config.seed", "Missing value"]),
    "group and field in the wrong order": (
        PAPER,
        ["--config.lora.rank=3", "--config.lora=none"],
        ["config.lora ", "lora.rank"],
    ),
    "text for an integer": (
        PAPER,
        ["--config.batch.chunks=many"],
        ["config.batch.chunks", "=many", "must be an integer"],
    ),
    "fraction for an integer": (
        PAPER,
        ["--config.batch.chunks=48.0"],
        ["config.batch.chunks", "=48.0", "must be an integer"],
    ),
    "text for a float": (
        PAPER,
        ["--config.lora.alpha=big"],
        ["config.lora.alpha", "=big", "must be a number"],
    ),
    "text for a bool": (
        PAPER,
        ["--config.log.tensorboard=maybe"],
        ["config.log.tensorboard", "=maybe", "must be true or false"],
    ),
    "none for an integer": (PAPER, ["--config.seed=none"], ["config.seed", "None", "must be int"]),
    "none for a group": (PAPER, ["--config.optim=none"], ["config.optim", "none", "not allowed"]),
    "number for a text": (
        PAPER,
        ["--config.data.files=(1,)"],
        ["config.data.files", "(1,)", "must be tuple[str, ...]"],
    ),
    "no such file": ("nowhere.py", [], ["--config=nowhere.py", "no such file", "configs/"]),
    "a folder": (str(ROOT / "configs"), [], ["configs", "no such file"]),
    "syntax error": ("def get_config(:\n", [], ["mine.py", "SyntaxError", "line 2"]),
    "import error": ("import nothing_like_it\n", [], ["mine.py", "line 2", "nothing_like_it"]),
    "no get_config": ("x = 1\n", [], ["mine.py", "no get_config()", "define one"]),
    "get_config is no function": (
        "get_config = Config()\n",
        [],
        ["mine.py", "TypeError", "not callable"],
    ),
    "unknown name": ("def get_config():\n    return Confg()\n", [], ["mine.py", "line 3", "Confg"]),
    "missing file read": (
        "def get_config():\n    open('/nope/x')\n",
        [],
        ["mine.py", "line 3", "/nope/x"],
    ),
    "forgotten return": (
        "def get_config():\n    Config()\n",
        [],
        ["mine.py", "NoneType", "return a Config"],
    ),
    "another object": (
        "def get_config():\n    return Training()\n",
        [],
        ["mine.py", "Training", "return a Config"],
    ),
    "misspelt field in the file": (
        "def get_config():\n    c = Config()\n    c.optim.stepz = 3\n    return c\n",
        [],
        ["mine.py", "line 4", "'Optim'", "'stepz'", "e5jax/config/schema.py"],
    ),
    "misspelt argument in the file": (
        "def get_config():\n    return Config(optim=Optim(stepz=3))\n",
        [],
        ["mine.py", "line 3", "Optim", "'stepz'", "e5jax/config/schema.py"],
    ),
    "text for an integer in the file": (
        "def get_config():\n    return Config(optim=Optim(steps='3'))\n",
        [],
        ["config.optim.steps", "'3'", "must be int"],
    ),
    "list for a tuple in the file": (
        "def get_config():\n    return Config(data=Data(files=['a']))\n",
        [],
        ["config.data.files", "['a']", "must be tuple[str, ...]"],
    ),
    "bool for an integer in the file": (
        "def get_config():\n    return Config(seed=True)\n",
        [],
        ["config.seed", "True", "must be int"],
    ),
    "one group for another in the file": (
        "def get_config():\n    return Config(optim=Lora())\n",
        [],
        ["config.optim", "Lora", "Optim"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file_or_override_is_one_config_error_that_names_it(name, tmp_path):
    text, overrides, named = WRONG[name]
    path = config_file(tmp_path, text) if "\n" in text else text
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    for words in named:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("word", ["seed=3", "--seed=3", "5", "--", "--config.seed 3"])
def test_a_word_that_is_no_override_is_refused(word):
    with pytest.raises(ConfigError):
        load(PAPER, [word])


def test_reading_a_configuration_imports_neither_jax_nor_the_network():
    code = "import sys; from e5jax.config.load import load; load('configs/quickstart.py'); print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {
        "jax",
        "flax",
        "grain",
        "orbax",
        "torch",
        "tensorflow",
        "transformers",
        "mteb",
        "requests",
        "huggingface_hub",
    }
    assert heavy & set(ast.literal_eval(done.stdout)) == set()


def test_embedder_is_imported_when_asked_for():
    code = "import sys, e5jax; assert 'jax' not in sys.modules; from e5jax import Embedder; print(Embedder.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "e5jax.inference.embedder\n"


def test_package_has_no_other_lazy_names():
    name = "Embeder"
    with pytest.raises(AttributeError, match=name):
        getattr(e5jax, name)


def _scalars(tree: type, path: str = "") -> Iterator[tuple[str, str, object]]:
    """Override, field and value of every field of a tree that is no group and no list; a group that may be missing is built."""
    for name, hint in typing.get_type_hints(tree).items():
        field, kind = f"{path}{name}", without_none(hint)
        if dataclasses.is_dataclass(kind):
            if kind is not hint:
                yield f"--config.{field}=build", "", None
            yield from _scalars(typing.cast(type, kind), f"{field}.")
        elif typing.get_origin(kind) is typing.Literal:
            yield f"--config.{field}={typing.get_args(kind)[-1]}", field, typing.get_args(kind)[-1]
        elif kind in SAMPLES:
            text, value = SAMPLES[kind]
            yield f"--config.{field}={text}", field, value


SAMPLES: dict[object, tuple[str, object]] = {
    int: ("7", 7),
    float: ("3.5", 3.5),
    bool: ("true", True),
    str: ("a word", "a word"),
}


@pytest.mark.parametrize(
    ("tree", "path"), [(Config, PAPER), (Synth, ROOT / "configs/synth_demo.py")]
)
def test_every_override_arrives_with_its_type_alone_and_among_all_others(tree, path):
    given = list(_scalars(tree))
    assert len(given) > 50
    builds = [override for override, field, _ in given if not field]
    everything = load_tree(tree, lambda _: None, str(path), [override for override, *_ in given])
    for override, field, wanted in given:
        if field:
            alone = load_tree(tree, lambda _: None, str(path), [*builds, override])
            for config in (everything, alone):
                assert (found := value(config, field)) == wanted, override
                assert type(found) is type(wanted), override
