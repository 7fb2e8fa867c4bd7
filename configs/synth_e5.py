"""The generator run of E5-Mistral (arXiv 2401.00368, section 3.1): 507,000 examples of six families in 93 languages.

Command    e5jax synth --config=configs/synth_e5.py --output=runs/synth_e5 --dry-run, then without --dry-run
Key        in OPENAI_API_KEY or a file (--config.endpoint.key_file); OPENAI_BASE_URL for another endpoint
Models     a stronger one for three quarters and a cheaper one for a quarter of the requests, as the paper's GPT-4 and GPT-3.5;
           put in the models of your endpoint, and their prices per million tokens
Expected   shares by family and language as in the paper's figure 2; some 180 million tokens for the paper's own run

Shares, placeholders and sampling are the paper's. It states no weights of placeholders (they are even here), and no language
of pairs (both are drawn from the same weights).
"""

from e5jax.llm_client.config import Budget, Endpoint, LanguageModel
from e5jax.synth.config import Synth


def get_config() -> Synth:
    return Synth(
        examples=507_000,
        endpoint=Endpoint(
            models=(
                LanguageModel("gpt-4o", share=75, prompt_price=2.5, completion_price=10.0),
                LanguageModel("gpt-4o-mini", share=25, prompt_price=0.15, completion_price=0.6),
            ),
        ),
        budget=Budget(tokens=600_000_000),
    )
