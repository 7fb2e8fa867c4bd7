"""Quickstart: real text, real training, real evaluation, on any machine in minutes.

Command    launch/train.sh
Data       docstring -> function pairs from the Python packages installed beside the project; held-out packages for the test
Stages     a small Mistral from scratch, all parameters, bare queries; then LoRA with instructions and hard negatives
           (another function of the same file)
Hardware   2 CPU cores
"""

from e5jax.config import (
    Batch,
    Checkpoint,
    Config,
    Data,
    Eval,
    Export,
    Harvest,
    Lora,
    Mesh,
    Model,
    Optim,
    Scratch,
    Tokens,
    Training,
)


def get_config() -> Config:
    harvest = Harvest()
    tokens = Tokens(vocabulary=8_192, limit=64)
    mesh = Mesh(data=-1, fsdp=1)  # so small a model is whole on every device
    pretrain = Training(
        data=Data(harvest=harvest, instructions=False),
        tokens=tokens,
        model=Model(
            scratch=Scratch(hidden=256, ff=512, layers=2, heads=4, kv_heads=2, head_size=64),
            pooling="last",
            dtype="float32",
            remat="attention",
        ),
        batch=Batch(
            queries=128,
            negatives=0,
            chunks=16,
            kept_chunks=16,
            row_tokens=128,
            texts_a_row=16,
            shards=4,
        ),
        mesh=mesh,
        optim=Optim(learning_rate=2e-3, steps=220, warmup_steps=20, weight_decay=0.01),
        checkpoint=Checkpoint(every=110, keep=2),
        export=Export(dtype="float32"),
    )
    return Config(
        stages=("data", "pretrain", "train", "export", "eval"),
        pretrain=pretrain,
        data=Data(harvest=harvest),
        tokens=Tokens(limit=tokens.limit),
        model=Model(pooling="last", dtype="float32", remat="attention"),
        lora=Lora(rank=16, alpha=32.0, dropout=0.0),
        batch=Batch(
            queries=96,
            negatives=1,
            chunks=18,
            kept_chunks=18,
            row_tokens=128,
            texts_a_row=16,
            shards=4,
        ),
        mesh=mesh,
        optim=Optim(learning_rate=2e-3, steps=75, warmup_steps=5, weight_decay=0.01),
        checkpoint=Checkpoint(every=25, keep=2),
        export=Export(dtype="float32", task=harvest.task),
        eval=Eval(tasks=("heldout",), backend="jax"),
    )
