"""Passkey retrieval (arXiv 2401.00368, section 5.2): a small Mistral from scratch that finds the one line of a text that counts.

Command    python -m examples.passkey --lengths=256,512,1024,2048,4096,8192,16384,32768 --examples=12000 --output=data/passkey
           e5jax run --config=configs/passkey.py
Data       documents of 256 tokens; longer ones are for `e5jax eval --tasks=data/passkey/passkey-512,…`
Stages     all parameters, on names that the test does not have
Hardware   2 CPU cores, 2 minutes (70 CPU seconds)
Expected   the right text first for 100 % of the queries at 256 and 512 tokens, 82 % at 1,024, 40 % at 2,048
"""

from e5jax.config import (
    Batch,
    Checkpoint,
    Config,
    Data,
    Eval,
    Export,
    Loss,
    Mesh,
    Model,
    Optim,
    Scratch,
    Tokens,
)

TASK = "Given a question about a person, retrieve the text that answers it"
LENGTH = 256  # tokens
FOLDER = f"data/passkey/passkey-{LENGTH}"


def get_config() -> Config:
    return Config(
        stages=("train", "export", "eval"),
        data=Data(files=(f"{FOLDER}/train.jsonl",)),
        tokens=Tokens(tokenizer="data/passkey/tokenizer.json", limit=LENGTH),
        model=Model(
            scratch=Scratch(hidden=128, ff=256, layers=2, heads=4, kv_heads=2, head_size=32),
            pooling="last",
            dtype="float32",
            remat="attention",
        ),
        batch=Batch(queries=48, negatives=0, chunks=8, kept_chunks=8, texts_a_row=8, shards=4),
        loss=Loss(temperature=0.05),
        mesh=Mesh(data=-1, fsdp=1),
        optim=Optim(learning_rate=2e-3, steps=120, warmup_steps=10, weight_decay=0.01),
        checkpoint=Checkpoint(every=120, keep=1),
        export=Export(dtype="float32", task=TASK),
        eval=Eval(tasks=(FOLDER,), backend="jax"),
    )
