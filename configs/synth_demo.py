"""Demonstration without a language model: a local server replies with fragments of translation catalogues.

Their language and length are right, their content is not. It shows what a run does and writes, not
data to train on.

Command    python -m examples.demo_endpoint e5jax synth --config=configs/synth_demo.py
Needs      pip install -e '.[demo]'
Hardware   2 CPU cores, a minute

`python -m examples.demo_endpoint --fault=500=0.02 …` fails on demand (`--help` names the faults).
"""

from e5jax.llm_client.config import Endpoint, LanguageModel
from e5jax.synth.config import Hints, Synth
from e5jax.synth.languages import table

# The server repeats itself word for word where a prompt repeats itself, and similarity has no task that would tell prompts apart.
DOMAINS = (
    "farming",
    "astronomy",
    "tax law",
    "cooking",
    "railways",
    "nursing",
    "chess",
    "geology",
    "theatre",
    "sailing",
    "bees",
)
PERSONAS = (
    "a pupil",
    "a lawyer",
    "a nurse",
    "a baker",
    "a tourist",
    "an engineer",
    "a translator",
    "a gardener",
    "a judge",
)
SILENT = ("jv", "ku", "la", "mg", "om", "sa", "su", "yi")  # no catalogue has them


def get_config() -> Synth:
    return Synth(
        examples=5_000,
        languages=tuple(
            f"{code}={language.weight}" for code, language in table().items() if code not in SILENT
        ),
        hints=Hints(domains=DOMAINS, domain_rate=1.0, personas=PERSONAS, persona_rate=1.0),
        endpoint=Endpoint(
            key_variable="",
            models=(
                LanguageModel("demo-large", share=75, prompt_price=2.5, completion_price=10.0),
                LanguageModel("demo-small", share=25, prompt_price=0.15, completion_price=0.6),
            ),
        ),
    )
