"""GTE's first stage (arXiv 2308.03281) on a decoder: very many pairs, large batches, no instructions, no hard negatives.

Command    e5jax run --config=configs/gte_stage1.py --workdir=runs/gte1
Data       pairs of any number of sources: --config.data.mixture.datasets as below, each batch from one source, drawn by
           size^0.5
Hardware   TPU v5e 8x8 (64 chips)
Expected   GTE-base, an encoder: MTEB (eng, v1) 59.0 after this stage (paper)

The paper's are the objective (eq. 5 and 6, temperature 0.01, all four directions in one softmax), mean pooling, batch 16,384,
128 tokens, 50,000 steps, 5 % of warm-up, alpha 0.5. It trains encoders whole, at learning rates of 5e-5 to 3e-4; what a 7B
decoder with adapters would want nobody has published: rate and adapters here are E5-Mistral's. The loss has no smaller value
than log 2.
"""

from e5_mistral_7b import get_config as e5_mistral_7b

from e5jax.config import Batch, Config, Loss


def get_config() -> Config:
    config = e5_mistral_7b()
    mixture = config.data.mixture
    mixture.shares, mixture.alpha, mixture.batches = "size", 0.5, "homogeneous"
    for dataset in mixture.datasets.values():
        dataset.instructions, dataset.ratio = (), 1.0
    config.data.instructions = False
    config.tokens.limit = 128
    config.model.pooling = "mean"
    config.loss = Loss(
        temperature=0.01,
        directions=("query_to_doc", "doc_to_query", "query_to_query", "doc_to_doc"),
        partition="joint",
    )
    config.batch = Batch(queries=16_384, negatives=0, chunks=16, row_tokens=512, shards=64)
    config.optim.steps, config.optim.warmup_steps = 50_000, 2_500
    return config
