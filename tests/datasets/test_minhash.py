import itertools
import random

import pytest

from e5jax.datasets.minhash import THRESHOLD, VARIANTS, NearIndex, sketch
from e5jax.datasets.normalise import read
from tests.data.examples import HAN, changed, sentence

WORDS = sentence(random.Random(9), 2_000)


def parts(words):
    return set(words) | set(itertools.pairwise(words))


def jaccard(one, other):
    return len(parts(one) & parts(other)) / len(parts(one) | parts(other))


def test_what_is_found_is_the_most_similar_text_of_a_search_over_all_pairs():
    chooser = random.Random(0)
    texts = [sentence(chooser, chooser.randint(10, 80)) for _ in range(150)]
    for words in texts[:100]:
        variant = words
        for _ in range(chooser.randint(1, 3)):
            variant = changed(variant, chooser, WORDS)
        texts.append(variant)
    missed = proposed = 0
    with NearIndex() as index:
        for number, words in enumerate(texts):
            best = (
                max((jaccard(words, other), -i) for i, other in enumerate(texts[:number]))
                if number
                else (0.0, 0)
            )
            match = index.find(sketch(read(" ".join(words))))
            if best[0] >= THRESHOLD:
                proposed += 1
                missed += match is None
            else:
                assert match is None
            if match:
                assert match.similarity == pytest.approx(
                    jaccard(words, texts[match.number]), abs=1e-12
                )
                assert match.similarity == pytest.approx(best[0], abs=1e-12)
            index.add(sketch(read(" ".join(words))))
    assert proposed > 40
    assert missed <= proposed // 20  # MinHash may overlook some that are barely similar


@pytest.mark.parametrize("script", ["latin", "han"])
def test_copies_with_a_tenth_of_the_words_changed_are_found_and_others_are_not(script):
    chooser = random.Random(1)
    pool, joint = (WORDS, " ") if script == "latin" else (HAN, "")
    make = (
        sentence
        if script == "latin"
        else (lambda chooser, length: chooser.choices(HAN, k=2 * length))
    )
    texts = [make(chooser, chooser.randint(12, 120)) for _ in range(300)]
    with NearIndex() as index:
        for words in texts:
            found = sketch(read(joint.join(words)))
            assert index.find(found) is None
            index.add(found)
        matches = [
            index.find(sketch(read(joint.join(changed(words, chooser, pool))))) for words in texts
        ]
    assert sum(
        match is not None and match.number == i for i, match in enumerate(matches)
    ) >= 0.97 * len(texts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("what is the capital of france", "what is the capital of spain"),
        ("get the shape of all the lines here", "set the shape of all the lines here"),
        ("北京今天的天气怎么样", "上海今天的天气怎么样"),
        ("a b", "a c"),
        ("", "of"),
    ],
)
def test_short_texts_match_as_a_whole_only(one, other):
    with NearIndex() as index:
        index.add(sketch(read(one)))
        assert index.find(sketch(read(other))) is None
        match = index.find(sketch(read(f" {one.upper()}?")))
        assert match is not None
        assert match.equal
    longer = (
        " and then it goes on for ten more words to the end of it",
        "然后这句话还要再继续说下去直到最后结束为止没有别的",
    )
    with NearIndex() as index:  # the same difference does not count in a long text
        index.add(sketch(read(one + longer[one > "z"])))
        assert index.find(sketch(read(other + longer[one > "z"]))) is not None


def test_numbers_count_all_texts_and_the_first_of_equal_ones_is_found():
    with NearIndex() as index:
        assert [index.add(sketch(read(text))) for text in ("one", "two", "One!")] == [0, 1, 2]
        assert len(index) == 3
        match = index.find(sketch(read("ONE")))
        assert match is not None
        assert match.number == 0


def test_a_variant_is_found_as_what_it_stands_for_and_leads_to_its_own_near_copies():
    chooser = random.Random(3)
    texts = [sentence(chooser, 40) for _ in range(30)]
    drifted = []
    with NearIndex() as index:
        for number, words in enumerate(texts):
            assert index.add(sketch(read(" ".join(words)))) == number
        for number, words in enumerate(texts):
            variant = changed(words, chooser, WORDS)
            index.add_variant(sketch(read(" ".join(variant))), number)
            drifted.append(changed(variant, chooser, WORDS))
            match = index.find(sketch(read(" ".join(variant))))
            assert match == (number, 1.0, True)
        assert len(index) == 30
        assert index.add(sketch(read("another text"))) == 30
        matches = [index.find(sketch(read(" ".join(words)))) for words in drifted]
    far = [jaccard(one, other) < THRESHOLD for one, other in zip(drifted, texts, strict=True)]
    assert sum(far) > 20  # the text itself does not lead there
    assert (
        sum(match is not None and match.number == number for number, match in enumerate(matches))
        >= 29
    )


def test_of_many_variants_all_equal_texts_are_found_and_a_few_lead_to_near_copies():
    chooser = random.Random(4)
    words = sentence(chooser, 40)
    chain = [words]
    for _ in range(VARIANTS + 4):
        chain.append(changed(chain[-1], chooser, WORDS))
    with NearIndex() as index:
        index.add(sketch(read(" ".join(words))))
        for variant in chain[1:]:
            index.add_variant(sketch(read(" ".join(variant))), 0)
        assert all(
            index.find(sketch(read(" ".join(variant)))) == (0, 1.0, True) for variant in chain
        )
        assert (
            index.find(sketch(read(" ".join(changed(chain[VARIANTS], chooser, WORDS))))) is not None
        )
        assert index.find(sketch(read(" ".join(changed(chain[-1], chooser, WORDS))))) is None


def test_texts_of_ten_words_are_compared_by_their_words_and_shorter_ones_are_not():
    for length, found in [(9, False), (10, True)]:
        words = sentence(random.Random(length), length)
        with NearIndex(threshold=0.3) as index:
            index.add(sketch(read(" ".join(words))))
            assert (index.find(sketch(read(" ".join([*words[:-1], "other"])))) is not None) == found


def test_a_similarity_of_just_the_threshold_is_enough():
    words = [f"w{i}" for i in range(40)]
    common = parts(words) & parts(words[:30])
    exact = len(common) / len(parts(words))
    with NearIndex(threshold=exact) as index:
        index.add(sketch(read(" ".join(words))))
        assert index.find(sketch(read(" ".join(words[:30])))) is not None
    with NearIndex(threshold=exact * 1.001) as index:
        index.add(sketch(read(" ".join(words))))
        assert index.find(sketch(read(" ".join(words[:30])))) is None


def test_of_equally_similar_texts_the_first_is_found():
    words = sentence(random.Random(5), 40)
    with NearIndex() as index:
        for last in ("one", "two", "three"):
            index.add(sketch(read(" ".join([*words[:-1], last]))))
        match = index.find(sketch(read(" ".join([*words[:-1], "four"]))))
    assert match is not None
    assert match.number == 0
