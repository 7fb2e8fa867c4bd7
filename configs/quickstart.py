"""Quickstart: real text, real training, real evaluation, on any machine in minutes.

Command    launch/train.sh
Data       docstring -> function pairs from the Python packages installed beside the project; held-out packages for the test
Stages     a small Mistral from scratch with all parameters; LoRA with instructions and hard negatives on top
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
    Model,
    Optim,
    Scratch,
    Tokens,
    Training,
)


def get_config() -> Config:
    harvest = Harvest()
    tokens = Tokens(vocabulary=8_192, limit=96)
    pretrain = Training(
        data=Data(harvest=harvest, instructions=False),
        tokens=tokens,
        model=Model(
            scratch=Scratch(hidden=256, ff=512, layers=2, heads=4, kv_heads=2, head_size=64),
            pooling="last",
            dtype="float32",
            remat="everything",
        ),
        batch=Batch(queries=128, negatives=0, chunks=1),
        optim=Optim(learning_rate=2e-3, steps=150, warmup_steps=15, weight_decay=0.01),
        checkpoint=Checkpoint(every=50, keep=2),
        export=Export(dtype="float32"),
    )
    return Config(
        stages=("data", "pretrain", "train", "export", "eval"),
        pretrain=pretrain,
        data=Data(harvest=harvest),
        tokens=Tokens(limit=128),
        model=Model(pooling="last", dtype="float32", remat="everything"),
        lora=Lora(rank=16, alpha=32.0, dropout=0.1),
        batch=Batch(queries=64, negatives=1, chunks=2),
        optim=Optim(learning_rate=1e-3, steps=40, warmup_steps=4, weight_decay=0.01),
        checkpoint=Checkpoint(every=20, keep=2),
        export=Export(dtype="float32", task=harvest.task),
        eval=Eval(tasks=("heldout",), backend="torch"),
    )
