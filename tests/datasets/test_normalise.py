import itertools
import random

import pytest

from e5jax.datasets.normalise import ngrams, read, shingles
from tests.data.examples import sentence


@pytest.mark.parametrize(
    "other",
    [
        "how TALL is  mont blanc",
        "How tall is Mont\nBlanc?",
        "How tall is Mont Blanc ...",
        "Ｈow tall is Mont Blanc？",
        "\u00a0How tall is Mont Blanc",
    ],
)
def test_case_width_spacing_and_the_last_mark_make_no_other_text(other):
    assert read(other).key == read("How tall is Mont Blanc").key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sort in C++", "sort in C#"),
        ("add 3.5", "add 35"),
        ("is it -1", "is it 1"),
        ("कि", "के"),
        ("か", "が"),
        ("", "a"),
    ],
)
def test_a_sign_a_vowel_or_a_number_makes_another_text(one, other):
    assert read(one).key != read(other).key


def test_vowel_signs_and_joiners_do_not_split_words():
    assert read("नमस्ते, आप कैसे हैं?").words == ["नमस्ते", "आप", "कैसे", "हैं"]
    assert read("soft\u00adhyphen snake_case() x²").words == ["softhyphen", "snake", "case", "x2"]


def test_without_spaces_every_character_is_a_word_and_half_a_word_long():
    found = read("東京の天気は、JAX 3日")
    assert found.words == ["東", "京", "の", "天", "気", "は", "jax", "3", "日"]
    assert found.length == 2 + 7 / 2


def test_shingles_are_words_and_neighbours():
    assert shingles(["a", "b", "a"]) == {"a", "b", "a b", "b a"}
    assert shingles([]) == set()


def test_ngrams_are_shared_exactly_where_runs_of_words_are():
    chooser = random.Random(0)
    texts = [sentence(chooser, 30) for _ in range(40)]
    texts += [one[10:20] + other[5:] for one, other in itertools.pairwise(texts)]
    for one, other in zip(texts[:40], texts[40:], strict=False):
        runs = [{tuple(words[i : i + 4]) for i in range(len(words) - 3)} for words in (one, other)]
        found = [set(ngrams(words, 4).tolist()) for words in (one, other)]
        assert [len(part) for part in found] == [len(part) for part in runs]
        assert len(found[0] & found[1]) == len(runs[0] & runs[1]) > 0
    assert len(ngrams(["a", "b"], 3)) == 0
