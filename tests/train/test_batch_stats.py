import jax
import numpy as np
import pytest

from e5jax.data.records import Metrics
from e5jax.train import batch_stats
from e5jax.train.batch_stats import Measures, memory_bytes
from e5jax.train.flops import model_flops
from tests import tiny

PEAK = 2e12
METRICS = Metrics(
    loss=np.float32(1.5),
    accuracy=np.float32(0.25),
    gradient_norm=np.float32(3.0),
    learning_rate=np.float32(1e-3),
    real_tokens=np.int32(600),
    computed_tokens=np.int32(800),
    squared_lengths=np.float32(9_000.0),
    finite=np.float32(1.0),
    skipped=np.int32(2),
    in_a_row=np.int32(0),
)


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(batch_stats.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def found(clock):
    """The scalars of a step of half a second."""
    made = Measures(tiny.made(), 32, PEAK)
    clock.now += 0.5
    return made.scalars(METRICS, 0.125)


def test_scalars_of_the_step_are_passed_on(found):
    names = ("loss", "accuracy", "gradient_norm", "learning_rate", "skipped")
    assert [found[f"train/{name}"] for name in names] == [
        1.5,
        0.25,
        3.0,
        float(np.float32(1e-3)),
        2,
    ]
    assert all(type(value) in (int, float) for value in found.values())


def test_rates_times_seconds_are_the_amounts(found):
    seconds = found["train/step_seconds"]
    assert seconds == 0.5
    assert found["train/pairs_per_second"] * seconds == found["train/pairs"] == 32
    assert found["train/tokens_per_second"] * seconds == found["train/real_tokens"] == 600


def test_token_share_is_that_of_real_tokens(found, clock):
    assert found["train/real_token_share"] == 0.75
    full = Measures(tiny.made(), 32, PEAK)
    clock.now += 1
    assert (
        full.scalars(METRICS._replace(real_tokens=METRICS.computed_tokens), 0.0)[
            "train/real_token_share"
        ]
        == 1
    )


def test_waiting_for_data_is_a_part_of_the_step(found):
    assert (found["train/data_wait_seconds"], found["train/data_wait_share"]) == (0.125, 0.25)


def test_flops_are_those_of_the_model_over_time_and_devices(found):
    wanted = model_flops(tiny.made(), 600, 9_000.0) / 0.5 / jax.device_count()
    assert found["train/tflops_per_device"] * 1e12 == pytest.approx(wanted)
    assert found["train/model_flops_utilisation"] * PEAK == pytest.approx(
        found["train/tflops_per_device"] * 1e12
    )


def test_a_step_lasts_from_the_end_of_the_one_before(clock):
    made = Measures(tiny.made(), 32, PEAK)
    clock.now += 0.5
    made.scalars(METRICS, 0.0)
    clock.now += 2
    assert made.scalars(METRICS, 0.0)["train/step_seconds"] == 2


def test_what_is_not_a_step_is_left_out_after_a_restart(clock):
    made = Measures(tiny.made(), 32, PEAK)
    clock.now += 60
    made.restart()
    clock.now += 0.25
    assert made.scalars(METRICS, 0.0)["train/step_seconds"] == 0.25


def test_memory_is_the_devices_own_peak_where_it_says(found):
    class Device:
        def memory_stats(self):
            return {"peak_bytes_in_use": 12_345}

    assert memory_bytes(Device()) == 12_345.0
    assert (
        2**26 < found["train/memory_bytes"] < 2**40
    )  # of this process: more than Python with JAX, less than a terabyte
