import numpy as np
import pytest

from e5jax.eval.significance import RESAMPLES, difference


def of(scores: np.ndarray) -> dict[str, float]:
    return {f"q{number}": float(score) for number, score in enumerate(scores)}


def test_the_interval_is_that_of_the_normal_approximation():
    differences = np.random.default_rng(0).normal(0.02, 0.3, 400)
    found = difference(of(differences), of(np.zeros(400)))
    assert found is not None
    error = differences.std() / 20  # of a mean of 400
    assert found.mean == pytest.approx(differences.mean())
    assert (found.low, found.high) == pytest.approx(
        (found.mean - 1.96 * error, found.mean + 1.96 * error), abs=0.1 * error
    )


def test_equal_systems_differ_in_nothing_and_a_clear_difference_is_seen():
    same = np.random.default_rng(0).uniform(size=100)
    assert difference(of(same), of(same))._replace(queries=0) == (0, 0.0, 0.0, 0.0, 1.0)
    assert difference(of(same + 0.1), of(same)).p == pytest.approx(2 / (RESAMPLES + 1))


def test_p_is_uniform_where_there_is_no_difference():
    random = np.random.default_rng(1)
    found = [
        difference(of(random.normal(size=60)), of(random.normal(size=60))).p for _ in range(60)
    ]
    assert 0 < np.mean(np.array(found) < 0.2) < 0.4  # 0.2 expected; 0.05 its standard error


def test_other_queries_cannot_be_compared():
    assert difference({"a": 1.0}, {"b": 1.0}) is None
    assert difference({}, {}) is None
