"""All that `configs/e5_mistral_7b.py` needs, small: its fifteen sets, a Mistral in plain Hugging Face layout, a retrieval task."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import MistralConfig, MistralForCausalLM, set_seed

from e5jax.data.prepared import MANIFEST
from e5jax.data.records import SCHEMA, Example
from e5jax.datasets.builder import write
from e5jax.datasets.public_sets import SETS

WORDS = (
    *("stone", "market", "candle", "window", "shadow", "rocket", "apple", "bridge"),
    *("copper", "ocean", "forest", "music", "planet", "paper", "cloud", "garden"),
)
EXAMPLES, DOCUMENTS, QUERIES = 12, 40, 10
PREPARED = "nq"  # written as `e5jax data prepare` does; the others are JSONL, which is quicker
# The paper's configuration in seconds on a CPU; its files are those of `lay_out`.
OVERRIDES = tuple(
    f"--config.{change}"
    for change in (
        "model.dtype=float32",
        "tokens.limit=48",
        "lora.rank=4",
        "batch.queries=16",
        "batch.chunks=4",
        "batch.kept_chunks=4",
        "batch.row_tokens=96",
        "batch.shards=4",
        "optim.steps=3",
        "optim.warmup_steps=1",
        "optim.learning_rate=0.01",
        "export.dtype=float32",
        "log.tensorboard=false",
    )
)


def overrides(root: Path, backend: str) -> list[str]:
    """Options of a run on what `lay_out` wrote."""
    files = [
        f"data.mixture.datasets.{one.name}.files=('{file_of(root, one.name)}',)" for one in SETS
    ]
    own = [
        *files,
        f"model.base={root / 'base'}",
        f"eval.tasks=('{root / 'tasks/words'}',)",
        f"eval.backend={backend}",
    ]
    return [*OVERRIDES, *(f"--config.{change}" for change in own)]


def file_of(root: Path, name: str) -> Path:
    """One set is a prepared folder, the others are JSONL."""
    return root / "data" / (name if name == PREPARED else f"{name}.jsonl")


def sentence(chooser: random.Random, words: int) -> str:
    return " ".join(chooser.choices(WORDS, k=words))


def lay_out(root: Path) -> None:
    """Writes the files of every set, `base` and the task `tasks/words` below `root`."""
    chooser = random.Random(0)
    for one in SETS:
        (root / "data").mkdir(parents=True, exist_ok=True)
        if one.name == PREPARED:
            folder = file_of(root, one.name) / f"{SCHEMA}.0.0"
            folder.parent.mkdir()
            write(one, _examples(chooser, one.name), folder)
            about = {
                "title": one.title,
                "licence": one.licence,
                "published": [],
                "languages": ["en"],
            }
            (folder / MANIFEST).write_text(
                json.dumps({"schema": SCHEMA, "examples": EXAMPLES, "set": one.name, **about})
            )
        else:
            lines = [example.to_json() + "\n" for example in _examples(chooser, one.name)]
            file_of(root, one.name).write_text("".join(lines))
    save_base(root / "base")
    save_task(root / "tasks" / "words", chooser)


def _examples(chooser: random.Random, name: str) -> Iterator[Example]:
    for number in range(EXAMPLES):
        positive = sentence(chooser, 6)
        query = " ".join(positive.split()[:3])
        yield Example(
            id=f"{name}-{number}",
            query=query,
            positives=(positive,),
            negatives=(sentence(chooser, 6),),
        )


def save_base(folder: Path) -> None:
    """A causal language model as its publishers save it: no modules.json, and a tokenizer that adds BOS but no EOS."""
    set_seed(0)
    config = MistralConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=None,
        initializer_range=0.2,  # so that these weights tell one text from another
    )
    MistralForCausalLM(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def save_task(folder: Path, chooser: random.Random) -> None:
    """A folder in BEIR layout: two words of a document find it, more or less."""
    (folder / "qrels").mkdir(parents=True)
    texts = [sentence(chooser, 6) for _ in range(DOCUMENTS)]
    documents = [
        {"_id": f"d{number}", "title": "", "text": text} for number, text in enumerate(texts)
    ]
    queries = [
        {"_id": f"q{number}", "text": " ".join(chooser.sample(text.split(), 2))}
        for number, text in enumerate(texts[:QUERIES])
    ]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{number}\td{number}\t1\n" for number in range(QUERIES))
    (folder / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
