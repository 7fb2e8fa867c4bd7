"""GTE's second stage (arXiv 2308.03281): fewer and better pairs, fifteen hard negatives, a tenth of the learning rate.

Command    e5jax run --config=configs/gte_stage2.py --workdir=runs/gte2
Data       as for configs/e5_mistral_7b.py, with fifteen hard negatives an example (`e5jax mine --negatives=15`)
Hardware   TPU v5e 4x4 (16 chips)
Expected   GTE-base, an encoder: MTEB (eng, v1) 62.4 after this stage (paper)

Begins where configs/gte_stage1.py ended: --config.model.base=runs/gte1/export. The paper's are batch 128, a group of 16 texts
a query, 512 tokens, one epoch of about 3M examples, a tenth of stage 1's learning rate, the objective of stage 1. How hard
negatives enter the directions between queries and between documents it does not say; here they are documents like others.
"""

from gte_stage1 import get_config as gte_stage1

from e5jax.config import Batch, Config


def get_config() -> Config:
    config = gte_stage1()
    for dataset in config.data.mixture.datasets.values():
        dataset.negatives = None
    config.tokens.limit = 512
    config.batch = Batch(queries=128, negatives=15, chunks=17, shards=16)
    config.optim.learning_rate, config.optim.steps, config.optim.warmup_steps = 1e-5, 23_400, 1_170
    return config
