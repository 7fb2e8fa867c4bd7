"""The model card of an exported folder."""

from e5jax.config import Training
from e5jax.model.spec import Spec


def model_card(run: Training, spec: Spec, step: int) -> str:
    """README.md in the form that model hubs read: what it is, how to use it, how it was trained, limits."""
    task, rate = run.export.task, run.optim
    how = f"LoRA r={run.lora.rank}, alpha={run.lora.alpha:g}, merged in float32" if run.lora else "all parameters"
    if run.model.quantisation != "none":
        how += f"; trained beside {run.model.quantisation} numbers of the base, merged into its original ones"
    instruction = f'"{task}"' if task else "None"
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, feature-extraction, {spec.family}, e5jax]
---
# Text embedder trained with e5jax

{spec.layers} layers, {spec.hidden} dimensions, {run.model.pooling}-token pooling,
at most {run.tokens.limit} tokens a text, cosine similarity.

## Use

```python
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("this-folder")
queries = model.encode_query(["how to read a file"])        # the instruction is the folder's `query` prompt
documents = model.encode_document(["def read(path): ..."])  # documents have none
print(model.similarity(queries, documents))
```

```python
import e5jax
model = e5jax.Embedder.from_pretrained("this-folder")
queries = model.encode(["how to read a file"], instruction={instruction})
```

With `transformers` alone: `AutoModel`, the tokenizer as it is (it adds BOS and EOS),
{_by_hand(run.model.pooling)}, divided by its length.

## Training

| | |
|---|---|
| start | {run.model.base or ("random weights" if run.model.scratch else "the pretrain stage of the same run")} |
| trained | {how} |
| steps | {step} of {run.batch.queries} queries, each with its positive and {run.batch.negatives} hard negatives |
| loss | InfoNCE, in-batch negatives, temperature {run.loss.temperature:g} |
| optimiser | AdamW, learning rate {rate.learning_rate:g}, weight decay {rate.weight_decay:g} |
| schedule | {rate.warmup_steps} warm-up steps, then linear decay |
| data | {_data(run)} |
| instruction | {f"`{task}`" if task else "none"} |

## Limits

It knows what its training pairs show and no more; languages, domains and lengths outside them are untested.
Texts are cut at {run.tokens.limit} tokens.
"""


def _by_hand(pooling: str) -> str:
    return (
        "the hidden state at the last token that is not padding"
        if pooling == "last"
        else "the mean of the hidden states that are not padding"
    )


def _data(run: Training) -> str:
    if not run.data.files and (sets := run.data.mixture.datasets):
        return f"{len(sets)} sets: {', '.join(sets)}"
    return ", ".join(run.data.files) or "docstring and function pairs harvested from installed Python packages"
