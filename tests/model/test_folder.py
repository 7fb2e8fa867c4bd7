"""Of a repository of the hub the files that are read are fetched, each once, and no others."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from e5jax.errors import ConfigError
from e5jax.model.folder import needed, shards
from tests.model.served import COMMIT, serving

INDEX = {
    "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
}
MODULES = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}]
SHARDS = list(INDEX["weight_map"].values())
NAMES = [
    "config.json",
    "tokenizer.json",
    *SHARDS,
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
]


def contents(*names: str) -> dict[str, bytes]:
    """Each file with other bytes: those of equal ones are fetched once."""
    return {name: json.dumps({"name": name}).encode() for name in names}


FILES = contents(*NAMES) | {
    "modules.json": json.dumps(MODULES).encode(),
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
}
OTHERS = contents(
    "consolidated.safetensors",
    "model.fp16.safetensors",
    "fp16/model.safetensors",
    "onnx/model.onnx",
    "onnx/config.json",
    "original/consolidated.00.safetensors",
    "pytorch_model.bin",
    "2_Dense/pytorch_model.bin",
    "README.md",
)


def fetched(files: dict[str, bytes], cache: Path) -> tuple[Counter[str], Path]:
    """What `locate` fetches, and where it puts it; a process of its own, as the address of the hub is read at import."""
    code = "from e5jax.model.folder import locate; print(locate('somebody/model'))"
    with serving(files) as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(cache),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Counter(hub.fetched), Path(done.stdout.strip())


def test_the_shards_of_the_index_and_the_modules_are_fetched_once_and_nothing_else(tmp_path):
    found, folder = fetched(FILES | OTHERS, tmp_path)
    assert found == Counter(FILES.keys())
    assert folder.name == COMMIT
    assert {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } == FILES.keys()


def test_without_an_index_the_one_file_is_fetched_and_an_adapters_beside_it(tmp_path):
    own = contents(
        "config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors"
    )
    found, _ = fetched(own | OTHERS, tmp_path)
    assert found == Counter(own.keys())


def test_names_are_not_patterns(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model[1]*.safetensors"}})
    )
    assert needed(tmp_path) == ["model[[]1][*].safetensors"]


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "not JSON"]
)
def test_an_index_that_is_none_is_refused_by_name(tmp_path, content):
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(ConfigError, match=r"index\.json: not "):
        shards(tmp_path / "index.json")
