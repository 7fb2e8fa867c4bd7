"""Environments: the user's own settings win, lists of flags are joined, and every set of flags that is offered compiles."""

import os
import subprocess
import sys

import pytest

from launch.launcher.profiles import PROFILES, environment, merge

COMPILES = """
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
mesh = Mesh(np.array(devices), ("fsdp",))
x, w = (jax.ShapeDtypeStruct((512, 512), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec("fsdp", None))) for _ in range(2))
step = jax.jit(jax.grad(lambda w, x: jnp.sum(jax.nn.gelu(x @ w).astype(jnp.float32))))
text = step.lower(w, x).compile().as_text()
assert "all-gather" in text or "all-reduce" in text, text
"""


@pytest.mark.parametrize(
    "name", [name for name, profile in PROFILES.items() if profile.platform == "tpu"] + ["unknown"]
)
def test_a_tpu_compiler_takes_the_flags_of_a_profile_and_not_others(name):
    if name == "unknown":
        flags = {"LIBTPU_INIT_ARGS": "--xla_tpu_no_such_flag=true"}
    else:
        flags = {
            key: value
            for key, value in environment("tpu", name).items()
            if key == "LIBTPU_INIT_ARGS"
        }
    around = {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "XLA_FLAGS": "",
    }
    command = [sys.executable, "-c", COMPILES]
    done = subprocess.run(
        command,
        env={**os.environ, **around, **flags},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert (done.returncode == 0) is (name != "unknown"), done.stderr[-2_000:]


def test_what_the_user_has_set_goes_before_and_lists_have_both():
    made = environment("cpu", devices=4)
    assert made["XLA_FLAGS"] == "--xla_force_host_platform_device_count=4"
    merged = merge(made, {"JAX_PLATFORMS": "cuda", "XLA_FLAGS": "--xla_own=1", "HOME": "/home"})
    assert merged["JAX_PLATFORMS"] == "cuda"
    assert merged["XLA_FLAGS"].split() == [
        "--xla_force_host_platform_device_count=4",
        "--xla_own=1",
    ]
    assert merged["HOME"] == "/home"
    assert merge(made, {"XLA_FLAGS": ""})["XLA_FLAGS"] == made["XLA_FLAGS"]


def test_no_flags_are_set_unless_they_are_asked_for():
    for platform in ("cpu", "cuda", "tpu", ""):
        assert not {"XLA_FLAGS", "LIBTPU_INIT_ARGS"} & environment(platform).keys()
    assert all(
        flag.startswith("--")
        for profile in PROFILES.values()
        for flags in profile.flags.values()
        for flag in flags
    )
