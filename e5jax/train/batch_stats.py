"""From a step's device metrics to the scalars that are logged."""

import resource
import time

import jax

from e5jax.data.records import Metrics
from e5jax.model.model_def import ModelDef
from e5jax.train.flops import model_flops


class Measures:
    """Turns `Metrics` into named scalars; a step's time is the time since the step before was finished."""

    def __init__(self, blueprint: ModelDef, queries: int, peak: float):
        self._blueprint, self._queries = blueprint, queries
        self._peak = peak
        self.restart()

    def restart(self) -> None:
        """Starts the clock anew, after something that is not a step."""
        self._last = time.perf_counter()

    def scalars(self, metrics: Metrics, waited: float) -> dict[str, float]:
        """All scalars of a step, whose batch was waited for so long; rates are over all devices unless named otherwise."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        tokens = int(metrics.real_tokens)
        flops = (
            model_flops(self._blueprint, tokens, float(metrics.squared_lengths))
            / seconds
            / jax.device_count()
        )
        return {
            "train/loss": float(metrics.loss),
            "train/accuracy": float(metrics.accuracy),
            "train/gradient_norm": float(metrics.gradient_norm),
            "train/learning_rate": float(metrics.learning_rate),
            "train/skipped": int(metrics.skipped),
            "train/step_seconds": seconds,
            "train/data_wait_seconds": waited,
            "train/data_wait_share": waited / seconds,
            "train/pairs": self._queries,
            "train/pairs_per_second": self._queries / seconds,
            "train/real_tokens": tokens,
            "train/tokens_per_second": tokens / seconds,
            "train/real_token_share": tokens / float(metrics.computed_tokens),
            "train/tflops_per_device": flops / 1e12,
            "train/model_flops_utilisation": flops / self._peak,
            "train/memory_bytes": memory_bytes(jax.local_devices()[0]),
        }


def memory_bytes(device: jax.Device) -> float:
    """Peak memory of the device; of this process where the device does not say (CPU)."""
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return float(stats["peak_bytes_in_use"])
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
