import random

from e5jax.datasets.duplicates import Earlier, without_duplicates
from tests.data.examples import changed, example, sentence

WORDS = sentence(random.Random(9), 2_000)


def clean(*sets):
    removed = []
    with Earlier() as earlier:
        return [
            one.id for part in sets for one in without_duplicates(part, earlier, removed.append)
        ], removed


def text(seed, length=30):
    return " ".join(sentence(random.Random(seed), length))


def near(words, seed=0):
    return " ".join(changed(words.split(), random.Random(seed), WORDS))


def test_the_first_copy_stays_within_a_set_and_across_sets():
    one = [
        example("a", "what is jax", text(1), source="first"),
        example("b", "What is JAX?", text(1).upper(), source="first"),
    ]
    two = [
        example("c", "what is jax", near(text(1)), source="second"),
        example("d", "what is flax", text(2), source="second"),
    ]
    kept, removed = clean(one, two)
    assert kept == ["a", "d"]
    assert [(r.id, r.source, r.reason, r.matched_id) for r in removed] == [
        ("b", "first", "equal", "a"),
        ("c", "second", "near", "a"),
    ]
    assert (removed[0].similarity, removed[0].part) == (1.0, "positive")
    assert 0.6 <= removed[1].similarity < 1
    assert near(text(1)).startswith(removed[1].excerpt)


def test_a_second_passage_and_a_second_question_are_kept():
    questions = [example(f"q{i}", text(100 + i, 12), text(1)) for i in range(20)]
    answers = [example(f"a{i}", "what is jax", text(200 + i)) for i in range(20)]
    crossed = [example("x", text(100, 12), text(200))]  # both parts were seen, but not together
    kept, removed = clean(questions, answers, crossed)
    assert removed == []
    assert len(kept) == 41


def test_negatives_decide_nothing():
    kept, _ = clean(
        [
            example("a", "what is jax", text(1), (text(2),)),
            example("b", "what is jax", text(1), (text(3),)),
        ]
    )
    assert kept == ["a"]
    kept, _ = clean(
        [
            example("a", "what is jax", text(1), (text(2),)),
            example("b", "what is flax", text(3), (text(2),)),
        ]
    )
    assert kept == ["a", "b"]
    kept, _ = clean(
        [
            example("a", "what is jax", text(1), (text(2),)),
            example("b", "what is jax", text(3), (text(2),)),
        ]
    )
    assert kept == ["a", "b"]
    kept, _ = clean(
        [example("a", "what is jax", text(1), (text(2),)), example("b", "what is jax", text(2))]
    )
    assert kept == ["a", "b"]


def test_planted_copies_are_removed_and_no_others():
    innocent = [example(f"{i}", text(i, 8), text(1_000 + i, 12 + i % 50)) for i in range(300)]
    equal = [one._replace(id=f"copy {one.id}", query=one.query.title()) for one in innocent[::3]]
    alike = [
        example(f"copy {i}", text(i, 8), near(text(1_000 + i, 12 + i % 50), i))
        for i in range(1, 300, 3)
    ]
    kept, removed = clean(innocent, equal, alike)
    assert kept[:300] == [one.id for one in innocent]
    assert len(kept) <= 303  # a near copy or two may be overlooked, an equal one may not
    assert all(r.id == f"copy {r.matched_id}" for r in removed)
    assert [r.id for r in removed if r.reason == "equal"] == [one.id for one in equal]


def test_an_equal_copy_is_found_even_if_a_text_in_between_resembles_it_more():
    words = sentence(random.Random(1), 60)
    second = changed(words, random.Random(2), WORDS)  # resembles the first, and is put down to it
    third = [
        *second[:-12],
        *sentence(random.Random(3), 12),
    ]  # resembles the second, and the first too little
    first, again = (
        example("a", "what", " ".join(words)),
        example("c", "what is jax", " ".join(second).upper()),
    )
    kept, removed = clean(
        [
            first,
            example("b", "what is jax", " ".join(second)),
            example("x", "no", " ".join(third)),
            again,
        ]
    )
    assert kept == ["a", "b", "x"]
    assert [(r.id, r.matched_id, r.reason) for r in removed] == [("c", "b", "equal")]


def test_of_two_parts_the_one_that_matches_less_is_said():
    question, answer = text(31, 40), text(32, 40)
    one = example("a", question, answer)
    for changed_query, changed_answer, part in [
        (4, 0, "query"),
        (0, 4, "positive"),
        (4, 1, "query"),
        (1, 4, "positive"),
    ]:
        query, positive = (
            " ".join([*words.split()[count:], *["new"] * count])
            for words, count in [(question, changed_query), (answer, changed_answer)]
        )
        _, (removed,) = clean([one, example("b", query, positive)])
        assert (removed.part, removed.reason) == (part, "near")
        assert removed.excerpt == (query if part == "query" else positive)[:120]
        assert removed.similarity < 1


def test_any_of_several_positives_makes_a_duplicate_of_the_right_example():
    several = [
        example("a", "what is jax", text(1))._replace(positives=(text(1), text(2))),
        example("b", "who", text(3)),
    ]
    kept, removed = clean(
        several,
        [
            example("c", "who", text(5))._replace(positives=(text(6), text(3))),
            example("d", "what is jax", text(2)),
        ],
    )
    assert kept == ["a", "b"]
    assert [(r.id, r.matched_id) for r in removed] == [("c", "b"), ("d", "a")]


def test_a_higher_threshold_keeps_near_copies():
    removed = []
    with Earlier(threshold=0.95) as earlier:
        pair = [example("a", "what is jax", text(1)), example("b", "what is jax", near(text(1)))]
        assert [one.id for one in without_duplicates(pair, earlier, removed.append)] == ["a", "b"]


def test_near_copies_of_near_copies_are_found_however_often_the_first_was_repeated():
    first = text(41, 60)
    second = near(first, 1)
    third = near(second, 2)
    answers = [example(f"{i}", first, text(50 + i)) for i in range(5)]
    kept, removed = clean([*answers, example("b", second, text(60)), example("c", third, text(60))])
    assert kept == ["0", "1", "2", "3", "4", "b"]
    assert [(r.id, r.matched_id, r.part) for r in removed] == [("c", "b", "query")]
