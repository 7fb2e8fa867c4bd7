"""Strict by configuration: eight CPU devices, no silent rank promotion, no network."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

from tests.flags import FAST

os.environ["JAX_PLATFORMS"] = "cuda,cpu" if "E5JAX_GPU" in os.environ else "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {FAST}"
# XLA has as many threads as devices, each of which waits in a collective: where a device has two
# collectives that may run at once, all threads can wait for devices that have none left.
os.environ["NPROC"] = "32"
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


# Folders and modules that take more than some seconds; `-m "not slow"` leaves them out.
SLOW = (
    *("faults", "storage", "launch"),
    *("test_edges.py", "test_environment.py", "test_flagship.py", "test_installed.py"),
    *("test_pipeline.py", "test_safety.py", "export/test_verify.py"),
    *("inference/test_calibrate.py", "inference/test_encode.py", "mine/test_mine.py"),
    *("model/test_kernels.py", "model/test_quantise.py", "model/test_weight_io.py"),
    *("plan", "synth/test_chain.py", "synth/test_commands.py", "synth/test_faults.py"),
    *("synth/test_journal.py", "synth/test_session.py", "train/test_loop.py", "train/test_step.py"),
    *("train/test_objective.py", "train/test_probe.py", "train/test_profile.py"),
    *("train/test_recipes.py", "train/test_reference.py", "train/test_scopes.py"),
    *("train/test_select.py", "train/test_sides.py"),
)


def pytest_collection_modifyitems(items):
    """Marks tests by their folder, and those that take long."""
    for item in items:
        path = item.path.relative_to(Path(__file__).parent)
        if path.parts[0] in ("faults", "launch"):
            item.add_marker(path.parts[0])
        if any(path.is_relative_to(slow) for slow in SLOW):
            item.add_marker("slow")


def pytest_collection_finish():
    """What has been imported stays: looking for garbage among its million objects, over and over, is an eighth of the time."""
    gc.freeze()
    gc.set_threshold(20_000)


def pytest_unconfigure():
    if PROGRAMS:
        shutil.rmtree(PROGRAMS)
