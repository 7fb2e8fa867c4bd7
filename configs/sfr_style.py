"""E5-Mistral continued in the manner of SFR-Embedding-Mistral: batches of one set, seven hard negatives, rank 8.

Command    e5jax run --config=configs/sfr_style.py --workdir=runs/sfr
Data       as for configs/e5_mistral_7b.py, with seven hard negatives an example (`e5jax mine --negatives=7`)
Hardware   TPU v5e 8x8 (64 chips)
Expected   MTEB (eng, v1) 67.6 (blog), 66.6 before

Source: Salesforce's blog on SFR-Embedding-Mistral: homogeneous batches are worth 0.8 points of retrieval, seven hard negatives,
batch 2,048, LoRA of rank 8, from E5-Mistral itself. Their data, steps and learning rate are not published: those of E5 stand here.
Merge the adapter of intfloat/e5-mistral-7b-instruct or train it first, and name it: --config.model.base=DIR.
"""

from e5_mistral_7b import get_config as e5_mistral_7b

from e5jax.config import Batch, Config, Lora


def get_config() -> Config:
    config = e5_mistral_7b()
    config.model.base = "intfloat/e5-mistral-7b-instruct"
    config.data.mixture.batches = "homogeneous"
    config.lora = Lora(rank=8, alpha=16.0, dropout=0.1)
    config.batch = Batch(queries=2_048, negatives=7, chunks=72, shards=64)
    return config
