"""Vectors that can be cut, in the manner of mGTE (arXiv 2407.19669): a loss for every prefix, on E5-Mistral's data and model.

Command    e5jax run --config=configs/mgte_mrl.py --workdir=runs/mgte
Data       as for configs/e5_mistral_7b.py; the paper has eight hard negatives (`e5jax mine --negatives=8`)
Hardware   TPU v5e 8x8 (64 chips)
Expected   not known: the paper's scores are those of an encoder on other data

The paper's are prefixes summed, each of unit length again, at temperature 0.05, batches of one source, sources drawn by
size^0.5, eight hard negatives. It has every multiple of 32 up to 768, with weights that it does not give; here are seven
prefixes, of weight 1. Its sparse half is left out.
"""

from e5_mistral_7b import get_config as e5_mistral_7b

from e5jax.config import Batch, Config, Loss


def get_config() -> Config:
    config = e5_mistral_7b()
    config.data.mixture.batches, config.data.mixture.shares, config.data.mixture.alpha = (
        "homogeneous",
        "size",
        0.5,
    )
    config.loss = Loss(temperature=0.05, dimensions=(4_096, 2_048, 1_024, 512, 256, 128, 64))
    config.batch = Batch(queries=2_048, negatives=8, chunks=80, shards=64)
    return config
