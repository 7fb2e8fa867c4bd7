"""Corpora: distinct texts, found again, wrong lines named."""

import pytest

from e5jax.errors import ConfigError
from e5jax.mine.corpus import Corpus, write_corpus
from tests.mine import small


def test_texts_that_come_again_are_left_out_and_every_id_finds_its_text(tmp_path):
    lines = [
        {"_id": "x", "text": "b"},
        {"id": "y", "text": "a"},
        {"_id": "z", "text": "b"},
        {"title": "c", "text": "d"},
    ]
    corpus = Corpus(small.write(tmp_path / "c.jsonl", lines))
    assert list(corpus) == ["b", "a", "c d"]
    assert corpus[1:] == ["a", "c d"]
    assert corpus.duplicates == 1
    assert [corpus.place(text) for text in ("b", "a", "c d", "d")] == [0, 1, 2, None]
    assert [corpus.place_of_id(name) for name in ("x", "y", "z", "", "other")] == [
        0,
        1,
        0,
        None,
        None,
    ]


def test_a_file_of_lines_is_a_corpus(tmp_path):
    (tmp_path / "c.txt").write_text("one\n\n two words \nüber\n", encoding="utf-8")
    assert list(Corpus(tmp_path / "c.txt")) == ["one", "two words", "über"]


def test_texts_survive_being_written_and_read(tmp_path):
    texts = ["line\nbreak", "half a pair \ud83d", "日本語", '"quoted"']
    write_corpus(tmp_path / "c.jsonl", texts)
    assert list(Corpus(tmp_path / "c.jsonl")) == texts


def test_a_changed_text_or_order_changes_the_fingerprint(tmp_path):
    prints = set()
    for texts in (["a", "b"], ["b", "a"], ["a", "c"], ["a"]):
        write_corpus(tmp_path / "c.jsonl", texts)
        prints.add(Corpus(tmp_path / "c.jsonl").fingerprint)
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"text": 3}', "string `text`"),
        ('{"text": " "}', "text is empty"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(line, reason, tmp_path):
    (tmp_path / "c.jsonl").write_text(f'{{"text": "a"}}\n\n{line}\n')
    with pytest.raises(ConfigError, match=rf"c\.jsonl:3: .*{reason}"):
        Corpus(tmp_path / "c.jsonl")


def test_an_empty_or_missing_corpus_is_refused(tmp_path):
    (tmp_path / "c.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="no texts"):
        Corpus(tmp_path / "c.jsonl")
    with pytest.raises(ConfigError, match="no such file"):
        Corpus(tmp_path / "d.jsonl")
