"""BM25 as an mteb search system, in memory: a baseline on the same tasks and metrics."""

import logging
import re
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float
from mteb.models import ModelMeta

K1, B = 1.5, 0.75  # the defaults of bm25s and of mteb's own BM25
_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|\d+")
# Lucene's English stop words.
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such "
        "that the their then there these they this to was will with",
    )
)


def words(text: str) -> list[str]:
    """Lower-case terms. An identifier gives its parts and, if there are several, itself."""
    terms = []
    for word in _WORD.findall(text):
        parts = _PART.findall(word)
        terms += [_singular(part.lower()) for part in parts if part.lower() not in _STOP]
        terms += [word.lower()] if len(parts) > 1 else []
    return terms


def _singular(term: str) -> str:
    """Harman's S stemmer: prose says `returns keys` where code says `return key`."""
    if term.endswith("ies") and len(term) > 4:
        return term[:-3] + "y"
    if term.endswith("s") and len(term) > 3 and not term.endswith(("ss", "us")):
        return term[:-1]
    return term


class BM25:
    """The mteb SearchProtocol, in Lucene's variant of BM25, without negative weights."""

    mteb_model_meta = ModelMeta.create_empty(
        {"name": "e5jax/bm25", "revision": f"lucene-k1={K1}-b={B}"}
    )

    def index(self, corpus: Dataset, **_: Any) -> None:
        """Indexes title and text of every document."""
        import bm25s  # noqa: PLC0415  starts JAX's backend, which takes the accelerator

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # bm25s sets it to DEBUG
        self._ids: list[str] = list(corpus["id"])
        titles = corpus["title"] if "title" in corpus.column_names else [""] * len(corpus)
        pairs = zip(titles, corpus["text"], strict=True)
        self._model = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._model.index(
            [words(f"{title or ''} {text}") for title, text in pairs], show_progress=False
        )

    def scores(self, query: str) -> Float[np.ndarray, " p"]:
        """The score of every document; 0 without a common term."""
        ids = self._model.get_tokens_ids(words(query))
        none = np.zeros(len(self._ids), np.float32)
        return self._model.get_scores_from_ids(ids) if ids else none

    def search(self, queries: Dataset, *, top_k: int, **_: Any) -> dict[str, dict[str, float]]:
        """The best `top_k` documents that share a term with each query."""
        rankings = {}
        for id_, text in zip(queries["id"], queries["text"], strict=True):
            scores = self.scores(text)
            best = np.argsort(-scores, kind="stable")[:top_k]
            rankings[id_] = {self._ids[i]: float(scores[i]) for i in best if scores[i] > 0}
        return rankings
