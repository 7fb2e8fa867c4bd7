"""A stand-in for a model, and records and corpora to mine, for tests."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from e5jax.config import Export, Model, Training
from e5jax.data.tokenizer import E5, TextTokenizer, train_tokenizer
from e5jax.export.folder import export_untrained
from tests import tiny

WIDTH = 8


class Hashing:
    """Every text has a random vector of its own; `calls` has the texts of each call."""

    def __init__(self) -> None:
        self.tokenizer = SimpleNamespace(templates=E5)
        self.calls: list[list[str]] = []

    def query_prompt(self, instruction: str) -> str:
        return E5.prefix(instruction)

    def encode(
        self, texts: Sequence[str], *, prompt: str | Sequence[str] | None = None
    ) -> np.ndarray:
        prompts = (
            [prompt or ""] * len(texts) if prompt is None or isinstance(prompt, str) else prompt
        )
        whole = [before + text for before, text in zip(prompts, texts, strict=True)]
        self.calls.append(whole)
        return np.stack([vector(text) for text in whole])


def vector(text: str) -> np.ndarray:
    """Unit length, a function of the text."""
    drawn = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(WIDTH, np.float32)
    return drawn / np.linalg.norm(drawn)


def words(count: int, seed: int = 0) -> list[str]:
    """Distinct texts."""
    random = np.random.default_rng(seed)
    return [f"{''.join(random.choice(list('abcdefgh'), 12))} {number}" for number in range(count)]


def record(
    number: int, query: str, positive: str, negatives: Sequence[str] = (), **more: str
) -> dict:
    """One training record in its JSON form."""
    return {
        "id": f"r{number}",
        "query": query,
        "positives": [positive],
        "negatives": list(negatives),
        **more,
    }


def write(path: Path, lines: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def task(folder: Path, records: int = 20, passages: int = 90) -> tuple[Path, Path]:
    """(records, corpus): half of the positives are in the corpus, which holds duplicates."""
    folder.mkdir(parents=True, exist_ok=True)
    texts, queries = words(passages), words(records, 1)
    given = [
        record(i, query, texts[i] if i % 2 else f"{texts[i]} elsewhere")
        for i, query in enumerate(queries)
    ]
    corpus = [{"_id": f"p{i}", "text": text} for i, text in enumerate([*texts, *texts[:10]])]
    return write(folder / "records.jsonl", given), write(folder / "corpus.jsonl", corpus)


def model_folder(folder: Path) -> Path:
    """An untrained model as a Hugging Face folder."""
    tokenizer = TextTokenizer(train_tokenizer(words(50), 300), 1, 2, 32)
    spec = tiny.SPEC._replace(vocab=tokenizer.tokenizer.get_vocab_size())
    run = Training(model=Model(base="x", dtype="float32"), export=Export(dtype="float32"))
    export_untrained(run, spec, tokenizer, folder)
    return folder
