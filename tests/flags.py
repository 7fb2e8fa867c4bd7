"""XLA flags of the tests. No property here depends on how well programs are optimised, and compiling is most of the time."""

FAST = " ".join(
    [
        "--xla_cpu_use_fusion_emitters=false",  # the older ones compile three times as fast
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    ]
)
