"""Integers and bits against sentence-transformers' own, for the same ranges; what is restored; what a folder keeps."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.util.quantization import quantize_embeddings

from e5jax.errors import ConfigError
from e5jax.inference.vector_quantization import (
    FILE,
    Store,
    quantise,
    ranges_of,
    read_ranges,
    restored,
    save_ranges,
    shortened,
    stored_bytes,
    stored_width,
)
from tests.vectors import unit

ALL = ("float32", "int8", "uint8", "binary", "ubinary")


@given(st.integers(1, 40), st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from(ALL))
def test_what_is_stored_is_what_sentence_transformers_stores_for_the_same_ranges(
    count, dimensions, seed, precision
):
    vectors, others = unit(count, dimensions, seed), unit(50, dimensions, seed + 1)
    others[:, 0] = 0.25  # a number that all vectors share
    ranges = ranges_of(others)
    found = quantise(vectors, precision, ranges)
    wanted = quantize_embeddings(vectors, precision, ranges=ranges)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
    assert found.shape == (count, stored_width(dimensions, precision))
    assert found[0].nbytes == stored_bytes(dimensions, precision)


def test_ranges_are_those_of_sentence_transformers():
    vectors, others = unit(20, 9, 0), unit(300, 9, 1)
    wanted = quantize_embeddings(vectors, "int8", calibration_embeddings=others)
    np.testing.assert_array_equal(quantise(vectors, "int8", ranges_of(others)), wanted)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_a_restored_number_is_half_a_step_away_at_most(precision):
    vectors = unit(500, 12, 3)
    vectors[:, 5] = 0.125
    ranges = ranges_of(vectors)
    found = restored(quantise(vectors, precision, ranges), precision, 12, ranges)
    step = (ranges[1] - ranges[0]) / 255
    assert (np.abs(found - vectors) <= step * 0.5001 + 1e-7).all()  # the division by a step rounds
    np.testing.assert_array_equal(found[:, 5], np.float32(0.125))


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_restored_bits_are_signs(precision):
    vectors = unit(50, 13, 4)
    vectors[0, 0] = 0.0  # not above zero
    found = restored(quantise(vectors, precision), precision, 13)
    np.testing.assert_array_equal(found, np.where(vectors > 0, 1, -1))


def test_leading_numbers_have_length_one_again_and_all_is_the_whole():
    vectors = unit(10, 16, 5)
    cut = shortened(vectors, 4)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        cut * np.linalg.norm(vectors[:, :4], axis=1, keepdims=True), vectors[:, :4], atol=1e-6
    )
    np.testing.assert_allclose(shortened(vectors, None), vectors, atol=1e-6)
    for wrong in (0, 17, -1):
        with pytest.raises(ConfigError, match=f"dimensions={wrong}: vectors have 16"):
            shortened(vectors, wrong)


def test_a_store_gives_its_rows_back():
    vectors = unit(30, 24, 6)
    for precision in ALL:
        store = Store.of(vectors, precision)
        np.testing.assert_array_equal(store.rows(np.array([[3, 4], [0, 29]])).shape, (2, 2, 24))
        error = np.abs(store.rows(np.arange(30)) - vectors).max()
        assert error <= {"float32": 0, "int8": 0.005, "uint8": 0.005}.get(precision, 1.0)


def test_ranges_come_back_from_a_folder_to_the_last_bit(tmp_path):
    assert read_ranges(tmp_path) == {}
    wide, narrow = ranges_of(unit(100, 8, 7)), ranges_of(shortened(unit(100, 8, 7), 3))
    save_ranges(tmp_path, {8: wide}, 100)
    save_ranges(tmp_path, {3: narrow}, 50)
    found = read_ranges(tmp_path)
    assert set(found) == {8, 3}
    for dimensions, ranges in ((8, wide), (3, narrow)):
        assert found[dimensions].dtype == np.float32
        np.testing.assert_array_equal(found[dimensions], ranges)
    assert json.loads((tmp_path / FILE).read_text())["3"]["texts"] == 50


@pytest.mark.parametrize(
    "content",
    [
        *(
            "[",
            "[]",
            '{"x": {}}',
            '{"2": {"least": [0, 0]}}',
            '{"2": {"least": [0], "greatest": [1]}}',
        ),
        *('{"1": {"least": [2], "greatest": [1]}}', '{"1": {"least": [NaN], "greatest": [1]}}'),
    ],
)
def test_damaged_ranges_are_named(content, tmp_path):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ConfigError, match=rf"{FILE}: not ranges by dimensions .*e5jax calibrate"):
        read_ranges(tmp_path)


def test_integers_without_ranges_say_how_to_get_them():
    with pytest.raises(
        ConfigError,
        match=r"precision='int8': no ranges are known for 6 dimensions; .*--dimensions=6",
    ):
        quantise(unit(3, 6, 0), "int8")
    with pytest.raises(
        ConfigError, match=r"ranges of shape \[2, 6\]: vectors of 5 dimensions need \[2, 5\]"
    ):
        quantise(unit(3, 5, 0), "uint8", ranges_of(unit(3, 6, 0)))
    with pytest.raises(ConfigError, match="1 vectors to calibrate on"):
        ranges_of(unit(1, 6, 0))
