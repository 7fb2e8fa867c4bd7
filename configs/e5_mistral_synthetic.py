"""E5-Mistral-7B on generated examples alone (arXiv 2401.00368, table 1).

Command    e5jax run --config=configs/e5_mistral_synthetic.py --workdir=runs/e5-synthetic
Data       `e5jax synth --config=configs/synth_e5.py`, then `e5jax data prepare synthetic`: 500,000 examples
Hardware   TPU v5e 4x4 (16 chips)
Expected   MTEB (eng, v1) 63.1 (paper)

The paper does not say how many steps it took. Here they are an epoch at 2,048 a step.
"""

from e5_mistral_7b import get_config as e5_mistral_7b

from e5jax.config import Config


def get_config() -> Config:
    config = e5_mistral_7b()
    config.data.mixture.datasets = {"synthetic": config.data.mixture.datasets["synthetic"]}
    config.optim.steps, config.optim.warmup_steps = 244, 50
    return config
