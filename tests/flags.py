"""XLA flags of the tests.

No test depends on how well programs are optimized, and compiling takes most of the time.
"""

FAST = " ".join(
    [
        "--xla_cpu_use_fusion_emitters=false",  # the older ones compile three times as fast
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        # By default a device that waits 40 s for the others, on a busy machine, ends the process.
        "--xla_cpu_collective_call_terminate_timeout_seconds=150",
    ]
)
