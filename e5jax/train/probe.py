"""Small retrieval sets that a run looks at while it trains: folders flow in once, nDCG@10 of any weights flows out.

Texts of all sets lie in rows as wide as training's, as many at a time as a chunk of training has: one compiled shape, on the
training mesh, in no more memory than a chunk.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, reshard
from jaxtyping import Array, Bool, Float, Int

from e5jax.config import Training
from e5jax.data.beir import Retrieval, ndcg, read_retrieval
from e5jax.data.packing import Layout, Rows, fill, first_fit_decreasing, layout
from e5jax.data.tokenizer import TextTokenizer
from e5jax.errors import ConfigError
from e5jax.mesh import BATCH
from e5jax.model.model_def import Parameters
from e5jax.model.pooling import pool
from e5jax.train.step import StepConfig


class Set(NamedTuple):
    """One folder: its texts in rows, queries first, where each text is, and the grade of each document for each query."""

    rows: Rows
    places: Int[np.ndarray, " texts"]
    grades: Float[np.ndarray, "q p"]  # documents that the corpus lacks come last
    own: Bool[
        np.ndarray, "q d"
    ]  # documents that a query does not retrieve, since they are the query itself


class Probe:
    """All sets of a run, and the function that embeds a part of one."""

    def __init__(
        self,
        run: Training,
        tokenizer: TextTokenizer,
        objective: StepConfig,
        mesh: jax.sharding.Mesh,
    ) -> None:
        """Reads all folders. Raises ConfigError for whatever is wrong with them."""
        self._every, self._last, self._mesh = run.probe.every, run.optim.steps, mesh
        self._sets = {
            Path(folder).resolve().name: _read(Path(folder), run, tokenizer)
            for folder in run.probe.folders
        }
        if len(self._sets) < len(run.probe.folders):
            raise ConfigError(
                f"config.probe.folders={run.probe.folders}: two have one name; scores are stored by name"
            )

        def embed(
            trained: Parameters,
            frozen: Parameters,
            tokens: Array,
            segments: Array,
            positions: Array,
            ends: Array,
        ) -> Array:
            hidden = objective.model_def.decoder({**frozen, **trained})(tokens, segments, positions)
            # Whole on every device, so that every process of a run can read it.
            return reshard(pool(hidden, segments, ends, objective.pooling), PartitionSpec())

        self._embed = jax.jit(embed)

    def due(self, number: int) -> bool:
        """Whether to look after this step."""
        return bool(self._every) and (number % self._every == 0 or number == self._last)

    def scores(self, trained: Parameters, frozen: Parameters) -> dict[str, float]:
        """nDCG@10 of every set, with these weights."""
        return {
            f"probe/{name}/ndcg_at_10": self._score(one, trained, frozen)
            for name, one in self._sets.items()
        }

    def _score(self, one: Set, trained: Parameters, frozen: Parameters) -> float:
        parts = [
            self._vectors(Rows(*(part[chunk] for part in one.rows)), trained, frozen)
            for chunk in range(len(one.rows.tokens))
        ]
        vectors = np.concatenate(parts)[one.places]
        queries = len(one.grades)
        scores = np.where(one.own, -np.inf, vectors[:queries] @ vectors[queries:].T)
        order = np.argsort(-scores, axis=1, kind="stable")
        return ndcg(np.take_along_axis(one.grades, order, axis=1), one.grades)

    def _vectors(
        self, rows: Rows, trained: Parameters, frozen: Parameters
    ) -> Float[np.ndarray, "texts d"]:
        """Of all slots of a part, one behind the other."""
        where = NamedSharding(self._mesh, PartitionSpec(BATCH))
        with jax.transfer_guard_host_to_device("allow"):
            put = [
                jax.make_array_from_callback(part.shape, where, part.__getitem__) for part in rows
            ]
        vectors = jax.device_get(self._embed(trained, frozen, *put))
        return vectors.reshape(-1, vectors.shape[-1])


def _read(folder: Path, run: Training, tokenizer: TextTokenizer) -> Set:
    found = read_retrieval(folder)
    if jax.process_index() == 0:
        print("".join(f"probe: {folder}: {note}\n" for note in found.notes), end="", flush=True)
    asked = list(found.relevant)[: run.probe.queries]
    documents = _documents(found, asked, run.probe.documents)
    task = found.instruction if run.data.instructions else ""
    put = tokenizer.templates.put
    texts = [put(found.queries[query], task) for query in asked]
    texts += [
        put(f"{one.title} {one.text}".strip(), None)
        for one in map(found.corpus.__getitem__, documents)
    ]
    ids = tokenizer(texts)
    rows, places = _pack(ids, layout(run.batch, run.tokens.limit))
    missing = list(
        dict.fromkeys(
            one for query in asked for one in found.relevant[query] if one not in found.corpus
        )
    )
    grades = np.array(
        [[found.relevant[query].get(one, 0) for one in documents + missing] for query in asked],
        np.float64,
    )
    if not grades.any():
        raise ConfigError(f"{folder}: no query has a relevant document; nothing could be scored")
    own = np.array([[found.skips_own and query == one for one in documents] for query in asked])
    return Set(rows, places, grades, own)


def _documents(found: Retrieval, asked: list[str], most: int) -> list[str]:
    """What is right for these queries, then others, up to `most`."""
    judged = (
        (document, grade) for query in asked for document, grade in found.relevant[query].items()
    )
    right = dict.fromkeys(
        document for document, grade in judged if grade and document in found.corpus
    )
    others = (document for document in found.corpus if document not in right)
    return [
        *right,
        *(document for document, _ in zip(others, range(most - len(right)), strict=False)),
    ]


def _pack(ids: list[list[int]], of: Layout) -> tuple[Rows, Int[np.ndarray, " texts"]]:
    """Rows like those of training, in as many parts as the texts need, and the slot of each text."""
    lengths = np.array([len(one) for one in ids])
    needed = (
        int(
            first_fit_decreasing(lengths, np.zeros_like(lengths), of.width, of.texts_a_row)[
                :, 0
            ].max()
        )
        + 1
    )
    rows, (places,) = fill([ids], of._replace(chunks=-(-needed // of.rows), shards=1))
    return rows, places
