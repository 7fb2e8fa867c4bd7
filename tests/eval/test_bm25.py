import math
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from e5jax.eval.bm25 import BM25, K1, B, Index, words

DOCUMENTS = [
    "def read_json(path): return json.load(path)",
    "def writeJson(path, values): json.dump(values, path)",
    "class HTTPServer: pass",
    "def area(radius): return pi * radius ** 2",
]


def handwritten(query: str) -> list[float]:
    """Lucene's BM25 as in its paper, with loops."""
    documents = [words(text) for text in DOCUMENTS]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        count, score = Counter(document), 0.0
        for term in words(query):
            having = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            score += idf * count[term] / (count[term] + K1 * (1 - B + B * len(document) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize(
    "query",
    ["read JSON values from a path", "area of a circle by radius", "http", "path path json"],
)
def test_scores_equal_a_handwritten_bm25(query):
    # bm25s keeps float32.
    np.testing.assert_allclose(
        Index(DOCUMENTS).scores(query), handwritten(query), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("query", ["", "the of", "unheard"])
def test_a_query_that_shares_no_term_scores_nothing(query):
    assert not Index(DOCUMENTS).scores(query).any()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("read_json_file", ["read", "json", "file", "read_json_file"]),
        ("readJsonFile", ["read", "json", "file", "readjsonfile"]),
        ("HTTPServer2", ["http", "server", "2", "httpserver2"]),
        ("__init__", ["init"]),
        ("path", ["path"]),
        ("Returns the keys", ["return", "key"]),
        ("entries class status", ["entry", "class", "status"]),
        ("größe Größe", ["größe", "größe"]),
    ],
)
def test_identifiers_are_split_and_kept(text, terms):
    assert words(text) == terms


def test_search_returns_the_best_documents_with_a_shared_term_only():
    corpus = Dataset.from_list([{"id": f"d{i}", "text": text} for i, text in enumerate(DOCUMENTS)])
    system = BM25()
    system.index(corpus)
    documents = system.search(
        Dataset.from_list([{"id": "q", "text": "write json"}, {"id": "none", "text": "unheard"}]),
        top_k=1,
    )
    assert list(documents["q"]) == ["d1"]
    assert documents["none"] == {}
    documents = system.search(Dataset.from_list([{"id": "q", "text": "write json"}]), top_k=9)
    assert list(documents["q"]) == ["d1", "d0"]


def test_titles_are_searched():
    system = BM25()
    system.index(
        Dataset.from_list(
            [{"id": "a", "title": "circle", "text": "x"}, {"id": "b", "title": "", "text": "y"}]
        )
    )
    assert list(
        system.search(Dataset.from_list([{"id": "q", "text": "circle"}]), top_k=5)["q"]
    ) == ["a"]
