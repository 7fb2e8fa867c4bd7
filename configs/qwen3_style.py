"""The objective of Qwen3-Embedding (arXiv 2506.05176) on E5-Mistral's data and model: false negatives are masked.

Command    e5jax run --config=configs/qwen3_style.py --workdir=runs/qwen3
Data       as for configs/e5_mistral_7b.py
Hardware   TPU v5e 4x4 (16 chips)
Expected   not known: the paper's scores are those of other data, models and merged checkpoints

The paper's are the directions, and the mask: a text is no negative that scores above the positive by 0.1, or that is the
positive. Its printed sum has no in-batch documents for a query and its text speaks of them; here they are. Temperature, batch
and steps are not published: those of E5 stand here.
"""

from e5_mistral_7b import get_config as e5_mistral_7b

from e5jax.config import Config, Loss


def get_config() -> Config:
    config = e5_mistral_7b()
    config.loss = Loss(
        temperature=0.02,
        directions=("query_to_doc", "query_to_query", "doc_to_doc"),
        mask_duplicates=True,
        margin=0.1,
    )
    return config
