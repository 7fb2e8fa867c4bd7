"""What the checkpoint's own model makes of some texts: what every reader of its folder must make of them too."""

from typing import NamedTuple, Self

import jax
import numpy as np

from e5jax.config import Mesh
from e5jax.export.layer_subsets import Part
from e5jax.export.trained_model import TrainedModel
from e5jax.inference.embedder import Embedder
from e5jax.inference.folder_settings import Settings
from e5jax.mesh import make_mesh
from e5jax.model import hf_weights
from e5jax.model.model_def import Parameters, model_def
from e5jax.model.spec import among_all

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
    documents_templated: list[str]
    long: str

    @classmethod
    def of(cls, subject: TrainedModel) -> Self:
        """The long one is beyond the limit of this model."""
        put = subject.tokenizer.templates.put
        templated = [put(text, subject.run.export.task) for text in QUERIES]
        return cls(
            QUERIES,
            templated,
            DOCUMENTS,
            [put(text, None) for text in DOCUMENTS],
            LONG * (subject.tokenizer.limit // 50 + 1),
        )


class Expected(NamedTuple):
    """Ids of all templated queries, documents and the long text; vectors of the queries and the documents."""

    ids: list[list[int]]
    vectors: np.ndarray


def reference(subject: TrainedModel, part: Part, texts: Texts) -> Expected:
    """Adapters stand beside the weights of the base and are not merged into them; float32 with exact products."""
    run = subject.run
    mesh = make_mesh(Mesh(1, 1, 1), jax.local_devices()[:1])
    spec = part.spec._replace(top=0)
    made = model_def(spec, run.lora, dtype="float32", remat="nothing", kernel="xla")
    wanted = made.abstract(made.leaves, mesh, "float32")
    from_base = {name: leaf for name, leaf in wanted.items() if not made.leaves[name].is_adapter}
    found: Parameters = (
        hf_weights.load(part.base, spec, from_base) if part.base and subject.made.frozen else {}
    )
    for name, value in trained(subject, part, found).items():
        found[name] = jax.device_put(value, wanted[name].sharding)
    settings = Settings(run.model.pooling, subject.tokenizer.limit, {}, "float32", None, {})
    model = Embedder(made, found, subject.tokenizer, settings, mesh)
    read = [*texts.templated, *texts.documents_templated]
    with jax.default_matmul_precision("highest"):
        return Expected(
            model.tokenize([*read, texts.long], prompt=""), model.encode(read, prompt="")
        )


def trained(subject: TrainedModel, part: Part, base: Parameters) -> dict[str, np.ndarray]:
    """What was trained of a part's layers, those that have names of their own again among all; what was not is the base's."""
    spec, end = subject.made.spec, part.first + part.spec.layers
    found: dict[str, np.ndarray] = {}
    for name, value in subject.parameters.items():
        stack = spec.stack(name)
        if stack is None:
            found[name] = np.asarray(value)
            continue
        whole, shape = among_all(name), (part.spec.layers, *subject.made.leaves[name].shape[1:])
        if whole not in found:
            found[whole] = np.array(base[whole]) if whole in base else np.zeros(shape, np.float32)
        for layer in range(max(part.first, stack.start), min(end, stack.stop)):
            found[whole][layer - part.first] = np.asarray(value[layer - stack.start])
    return found
