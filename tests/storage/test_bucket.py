"""Checkpoints in a bucket: Google's and Amazon's storage emulated here; Orbax, TensorStore, gcsfs and s3fs as they are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from e5jax import storage
from e5jax.checkpoint import checkpointer
from e5jax.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["gs", "s3"])
def seen(request) -> dict:
    """What was seen."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", "tests.storage.bucket", request.param]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_bucket_keeps_the_newest_and_gives_them_back_bit_for_bit(seen):
    assert seen["kept"] == [2, 3]
    assert seen["newest"] == 3
    assert seen["restored"] == [True, True]
    assert (seen["facts"]["step"], seen["facts"]["said"]) == (3, 3)


def test_what_is_damaged_or_has_no_manifest_is_no_checkpoint(seen):
    assert seen["flipped"] == [2, True]
    assert seen["mended"] == 3
    assert seen["killed"] == 2


def test_a_writer_sets_it_aside_and_goes_on(seen):
    assert seen["after"] == [4, True, [2, 4]]
    assert seen["aside"] == ["3", "3.txt"]
    assert [("sound" in line, "quarantine" in line) for line in seen["listing"]] == [
        (True, False),
        (False, True),
        (True, False),
    ]


def test_a_bucket_that_is_not_there_is_one_line_before_anything_is_computed(seen):
    said = r"\w+://no-such-bucket/run: cannot be written to \(FileNotFoundError: .*\); is there such a bucket, and may you .*"
    assert re.fullmatch(said, seen["nowhere"])


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("gs://b/run", "gcsfs: pip install 'e5jax[gcs]'"),
        ("s3://b/run", "s3fs: pip install 'e5jax[s3]'"),
    ],
)
def test_a_bucket_whose_package_is_missing_names_the_extra(where, said, monkeypatch):
    monkeypatch.setattr(storage, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=re.escape(f"{where}: needs the package {said}")):
        storage.folder_of(where)


@pytest.mark.parametrize("driver", ["gcs", "gcs_grpc"])
def test_orbax_opens_s3_with_endpoint_and_keys_of_the_environment(driver, monkeypatch):
    checkpointer.support_s3()
    build = tensorstore_utils.build_kvstore_tspec
    checkpointer.support_s3()
    assert tensorstore_utils.build_kvstore_tspec is build  # replaced once
    monkeypatch.setenv("TENSORSTORE_GCS_BACKEND", driver)
    for name in ("ENDPOINT_URL_S3", "ENDPOINT_URL", "REGION", "DEFAULT_REGION", "ACCESS_KEY_ID"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    plain = {"driver": "s3", "bucket": "b", "path": "run/5"}
    assert build("s3://b/run/5", "x", use_ocdbt=False) == plain | {"path": "run/5/x"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://here")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    base = build("s3://b/run/5", "x")["base"]
    credentials = {"aws_credentials": {"type": "environment"}}
    assert base == plain | credentials | {"endpoint": "http://here", "aws_region": "us-east-1"}
    assert "somebody" not in str(base)


def test_orbax_alone_still_takes_s3_for_a_file():
    """When this fails, Orbax supports s3:// and `support_s3` can be deleted."""
    checkpointer.support_s3()
    own = tensorstore_utils.build_kvstore_tspec.__wrapped__
    assert own("s3://b/run/5", "x", use_ocdbt=False)["driver"] == "file"
