"""Strict by configuration: eight CPU devices, no silent rank promotion, no network."""

import gc
import os
import shutil
import tempfile

from tests.flags import FAST

os.environ["JAX_PLATFORMS"] = "cuda,cpu" if "E5JAX_GPU" in os.environ else "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {FAST}"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
from hypothesis import settings

jax.config.update("jax_numpy_rank_promotion", "raise")

# All workers of pytest, and the programs that tests start, share what they compile.
PROGRAMS = (
    "" if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="e5jax-programs-")
)
os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS or os.environ["JAX_COMPILATION_CACHE_DIR"]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

settings.register_profile(
    "e5jax", deadline=None
)  # how long an example takes says how busy the machine is
settings.load_profile("e5jax")


def pytest_collection_finish():
    """What has been imported stays: looking for garbage among its million objects, over and over, is an eighth of the time."""
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_unconfigure():
    if PROGRAMS:
        shutil.rmtree(PROGRAMS)
