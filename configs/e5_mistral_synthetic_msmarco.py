"""E5-Mistral-7B on generated examples and MS MARCO (arXiv 2401.00368, table 1): on what most ablations of the paper are.

Command    e5jax run --config=configs/e5_mistral_synthetic_msmarco.py --workdir=runs/e5-synthetic-msmarco
Data       generated examples as for configs/e5_mistral_synthetic.py, MS MARCO passages and documents
Hardware   TPU v5e 4x4 (16 chips)
Expected   MTEB (eng, v1) 64.5 (paper)

The paper does not say how many steps it took, nor whether it took passages, documents or both. Here it is an epoch of both in
its ratios.
"""

from e5_mistral_7b import get_config as e5_mistral_7b

from e5jax.config import Config


def get_config() -> Config:
    config = e5_mistral_7b()
    sets = config.data.mixture.datasets
    config.data.mixture.datasets = {
        name: sets[name] for name in ("synthetic", "msmarco_passage", "msmarco_document")
    }
    config.optim.steps, config.optim.warmup_steps = 400, 50
    return config
