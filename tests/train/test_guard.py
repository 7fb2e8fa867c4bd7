"""What the guard remembers and decides, against NumPy, and that all devices decide alike."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from e5jax.config import Guard
from e5jax.train import guard
from e5jax.train.guard import GuardState, should_apply
from tests import tiny

SPIKES = Guard(spike=6.0, window=8)


def walk(settings: Guard, curve: list[tuple[float, float]]) -> list[tuple[bool, bool, GuardState]]:
    """(made, finite, watch) of every step of a curve of loss and gradient norm."""
    step, found = jax.jit(lambda watch, loss, norm: should_apply(settings, watch, loss, norm)), []
    with jax.set_mesh(on := tiny.mesh(2, 2, 2)):
        whole = NamedSharding(on, PartitionSpec())
        watch = jax.device_put(guard.fresh(), whole)
        for pair in curve:
            made, finite, watch = step(
                watch, *(jax.device_put(np.float32(value), whole) for value in pair)
            )
            found.append((bool(made), bool(finite), jax.device_get(watch)))
    return found


def noisy(steps: int, seed: int = 0) -> list[tuple[float, float]]:
    random = np.random.default_rng(seed)
    return list(
        zip(2 + 0.1 * random.standard_normal(steps), 5 + random.standard_normal(steps), strict=True)
    )


def test_statistics_are_those_of_all_steps_at_first_and_then_of_the_last_ones():
    curve = noisy(40)
    found = [watch for _, _, watch in walk(SPIKES, curve)]
    values = np.array(curve)
    for number in range(1, 9):
        assert found[number - 1].mean == pytest.approx(values[:number].mean(0), rel=1e-5)
        assert found[number - 1].variance == pytest.approx(
            values[:number].var(0), rel=1e-3, abs=1e-6
        )
    mean, variance = values[:8].mean(0), values[:8].var(0)
    for number, value in enumerate(values[8:], 8):
        mean, variance = mean + (value - mean) / 8, 7 / 8 * (variance + (value - mean) ** 2 / 8)
        assert found[number].mean == pytest.approx(mean, rel=1e-5)
        assert found[number].variance == pytest.approx(variance, rel=1e-3)
    assert found[-1].counted == 40


@pytest.mark.parametrize("which", [0, 1], ids=["loss", "gradient norm"])
def test_ten_standard_deviations_are_a_spike_and_leave_no_trace_in_the_statistics(which):
    curve = noisy(30)
    high = list(curve[20])
    high[which] += 10 * (0.1, 1.0)[which]
    found = walk(SPIKES, [*curve[:20], tuple(high), *curve[20:]])
    assert [made for made, _, _ in found] == [number != 20 for number in range(31)]
    assert all(finite for _, finite, _ in found)
    plain = walk(SPIKES, curve)
    assert found[-1][2]._replace(skipped=0).counted == plain[-1][2].counted
    assert np.array_equal(found[-1][2].mean, plain[-1][2].mean)
    assert (
        found[20][2].skipped,
        found[20][2].in_a_row,
        found[21][2].in_a_row,
        found[-1][2].skipped,
    ) == (1, 1, 0, 1)


def test_a_spike_is_none_before_there_is_anything_to_compare_it_with_nor_below_the_usual():
    assert all(made for made, _, _ in walk(SPIKES, [*noisy(7), (50.0, 900.0)]))
    assert all(made for made, _, _ in walk(SPIKES, [*noisy(20), (0.0, 0.0)]))


def test_a_flat_curve_may_rise_a_little():
    assert all(made for made, _, _ in walk(SPIKES, [(1.0, 1.0)] * 20 + [(1.05, 1.05)]))
    assert not walk(SPIKES, [(1.0, 1.0)] * 20 + [(1.07, 1.0)])[-1][0]


def test_without_the_spike_guard_only_what_is_no_number_is_refused():
    bad = [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, np.inf), (-np.inf, 1.0)]
    found = walk(Guard(window=2), [*noisy(9), (1e30, 1e30), *bad, (2.0, 5.0)])
    assert [made for made, _, _ in found] == [True] * 10 + [False] * 5 + [True]
    assert [made for made, _, _ in found] == [finite for _, finite, _ in found]
    assert [int(watch.in_a_row) for _, _, watch in found[9:]] == [0, 1, 2, 3, 4, 5, 0]
    assert int(found[-1][2].skipped) == 5
    assert np.all(np.isfinite(found[-1][2].mean))


@pytest.mark.parametrize("number", [0, 3, 7])
def test_what_one_device_alone_has_found_is_refused_by_all(number):
    on = tiny.mesh(2, 2, 2)
    whole = NamedSharding(on, PartitionSpec())
    copies = [
        jax.device_put(np.float32(np.nan if n == number else 1), device)
        for n, device in enumerate(on.devices.flat)
    ]
    with jax.set_mesh(on):
        loss = jax.make_array_from_single_device_arrays((), whole, copies)
        made, _, watch = jax.jit(lambda *values: should_apply(Guard(), *values))(
            jax.device_put(guard.fresh(), whole), loss, jax.device_put(np.float32(1), whole)
        )
    assert [bool(shard.data) for shard in made.addressable_shards] == [False] * 8
    assert [int(shard.data) for shard in watch.skipped.addressable_shards] == [1] * 8
