import math
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset

from e5jax.eval.bm25 import BM25, K1, B, words

DOCUMENTS = [
    "def read_json(path): return json.load(path)",
    "def writeJson(path, values): json.dump(values, path)",
    "class HTTPServer: pass",
    "def area(radius): return pi * radius ** 2",
]


def indexed(*rows: dict[str, str]) -> BM25:
    system = BM25()
    system.index(Dataset.from_list([{"id": f"d{i}", **row} for i, row in enumerate(rows)]))
    return system


@pytest.fixture(scope="module")
def system() -> BM25:
    return indexed(*({"text": text} for text in DOCUMENTS))


def search(system: BM25, top_k: int, **queries: str) -> dict[str, list[str]]:
    rows = Dataset.from_list([{"id": id_, "text": text} for id_, text in queries.items()])
    return {id_: list(best) for id_, best in system.search(rows, top_k=top_k).items()}


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
def test_scores_equal_a_handwritten_bm25(query, system):
    # bm25s keeps float32.
    np.testing.assert_allclose(system.scores(query), handwritten(query), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("query", ["", "the of", "unheard"])
def test_a_query_without_a_common_term_scores_nothing(query, system):
    assert not system.scores(query).any()


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


def test_search_returns_the_best_documents_with_a_common_term_only(system):
    rankings = search(system, 1, q="write json", none="unheard")
    assert rankings == {"q": ["d1"], "none": []}
    assert search(system, 9, q="write json") == {"q": ["d1", "d0"]}


def test_titles_are_searched():
    system = indexed({"title": "circle", "text": "x"}, {"title": "", "text": "y"})
    assert search(system, 5, q="circle") == {"q": ["d0"]}
