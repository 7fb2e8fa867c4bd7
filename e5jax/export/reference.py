"""What the checkpoint's own model makes of some texts: what every reader of its folder must make of them too."""

from typing import NamedTuple, Self

import jax
import numpy as np

from e5jax.config import Mesh
from e5jax.embedder import Embedder, Settings
from e5jax.export.subject import Subject
from e5jax.export.window import Part
from e5jax.mesh import make_mesh
from e5jax.model import hf
from e5jax.model.blueprint import Parameters, blueprint
from e5jax.tokens import query_text

# None begins or ends with a blank: sentence-transformers 5 takes those away.
QUERIES = [
    "how to read a file",
    "Größe und Maß: was ist der Unterschied?",
    "скорость света",
    "日本語のテキスト",
    "</s> inside <s> a text",
    "?",
]
DOCUMENTS = [
    "def read(path):\n\treturn open(path).read()  # 🙂",
    "मुंबई भारत का एक शहर है।",
    "Instruct: nothing\nQuery: how to read a file",
    "two  spaces and \u200b",
    "",
    " ".join(["word"] * 40),
]
LONG = "a text that is longer than any limit " * 10


class Texts(NamedTuple):
    """What is embedded to compare."""

    queries: list[str]  # as users give them
    templated: list[str]  # as the model reads them
    documents: list[str]
    long: str

    @classmethod
    def of(cls, subject: Subject) -> Self:
        """The long one is beyond the limit of this model."""
        templated = [query_text(text, subject.run.export.task) for text in QUERIES]
        return cls(QUERIES, templated, DOCUMENTS, LONG * (subject.tokenizer.limit // 50 + 1))


class Expected(NamedTuple):
    """Ids of all templated queries, documents and the long text; vectors of the queries and the documents."""

    ids: list[list[int]]
    vectors: np.ndarray


def reference(subject: Subject, part: Part, texts: Texts) -> Expected:
    """Adapters stand beside the weights of the base and are not merged into them; float32 with exact products."""
    run, end = subject.run, part.first + part.spec.layers
    mesh = make_mesh(Mesh(1, 1, 1), jax.local_devices()[:1])
    made = blueprint(part.spec, run.lora, dtype="float32", remat="nothing", kernel="xla")
    found: Parameters = hf.load(part.base, part.spec, made.abstract(made.frozen, mesh, "float32")) if part.base and run.lora else {}
    for name, leaf in made.abstract(made.trained, mesh, "float32").items():
        value = subject.parameters[name]
        own = value[part.first : end] if name.startswith("layers/") else value
        found[name] = jax.device_put(np.asarray(own), leaf.sharding)
    settings = Settings(run.model.pooling, subject.tokenizer.limit, {}, "float32")
    model = Embedder(made, found, subject.tokenizer, settings, mesh)
    read = [*texts.templated, *texts.documents]
    with jax.default_matmul_precision("highest"):
        return Expected(model.tokenize([*read, texts.long]), model.encode(read))
