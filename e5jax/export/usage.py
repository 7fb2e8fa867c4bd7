"""How an exported folder is used: the part of its model card with code in it."""

import json

from e5jax.config import Pooling
from e5jax.export.trained_model import Choice, TrainedModel

POOLING: dict[Pooling, str] = {
    "last": """last = (mask * torch.arange(mask.shape[1])).argmax(1)  # of the last token, on whichever side the padding is
vectors = hidden[torch.arange(len(texts)), last]""",
    "mean": "vectors = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)",
    "weighted_mean": """weights = mask * mask.cumsum(1)  # 1, 2, … over the tokens of a text
vectors = (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)""",
}
VECTOR: dict[Pooling, str] = {
    "last": "the hidden state at the last token,",
    "mean": "the mean of the hidden states of all its tokens,",
    "weighted_mean": "the mean of the hidden states of all its tokens, weighted 1, 2, … from the first to the last,",
}


def usage(subject: TrainedModel, choice: Choice) -> str:
    """Instructions, and code for sentence-transformers, transformers and `Embedder`, to be run beside the folder."""
    task, pooling, adapter = (
        subject.run.export.task,
        subject.run.model.pooling,
        choice.format == "adapter",
    )
    templates, (bos, eos) = subject.tokenizer.templates, subject.tokenizer.pieces
    prefix, document = templates.prefix(task), templates.prefix(None)
    base = (
        f"This folder holds an adapter; its base is `{base_name(subject, choice)}`.\n"
        if adapter
        else ""
    )
    own = "; put your own task in place of this one" if task and "{task}" in templates.query else ""
    first = json.dumps(document, ensure_ascii=False) + " + " if document else ""
    said = "Neither queries nor documents have an instruction."
    if prefix or document:
        said = f"""Queries begin with `{code(prefix)}`, where `\\n` is a line break{own}.
Documents {f"begin with `{code(document)}`" if document else "have nothing before them"}."""
    return f"""## Use

{base}{said}
Every text is `{bos} … {eos}`, of which the tokenizer adds both; its vector is {VECTOR[pooling]} divided by its length.

With sentence-transformers, where the instruction is the prompt `query`:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("this-folder")
queries = model.encode_query(["how to read a file"])
documents = model.encode_document(["def read(path): ..."])
print(model.similarity(queries, documents))
```

With transformers{" and PEFT, which puts the adapter on its base" if adapter else ""}:

```python
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("this-folder")
model = AutoModel.from_pretrained("this-folder")
texts = [{json.dumps(prefix, ensure_ascii=False)} + "how to read a file", {first}"def read(path): ..."]
batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
mask = batch["attention_mask"]
with torch.inference_mode():
    hidden = model(**batch).last_hidden_state
{POOLING[pooling]}
vectors = torch.nn.functional.normalize(vectors, dim=-1)
print(vectors[:1] @ vectors[1:].T)
```

With e5jax, on JAX:

```python
import e5jax

model = e5jax.Embedder.from_pretrained("this-folder")
queries = model.encode(["how to read a file"], instruction={json.dumps(task, ensure_ascii=False)})
documents = model.encode(["def read(path): ..."])
print(model.similarity(queries, documents))
```"""


def base_name(subject: TrainedModel, choice: Choice) -> str:
    """What an adapter folder calls its base: the run's own name for it, or the folder that it was read from."""
    return choice.base_name or subject.run.model.base or str(subject.base)


def code(text: str) -> str:
    """A text between backquotes, on one line."""
    return text.replace("\n", "\\n").replace("`", "'")
