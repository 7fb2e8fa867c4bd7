"""Strict by configuration: eight CPU devices, no silent rank promotion, no network."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# No property here depends on how well programs are optimised, and compiling is most of the time.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_force_host_platform_device_count=8",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
from hypothesis import settings

jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("e5jax", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("e5jax")
