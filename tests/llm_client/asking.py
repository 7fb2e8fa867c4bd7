"""Requests to the demo endpoint, and what tests say about them."""

from e5jax.llm_client.config import Endpoint, LanguageModel
from e5jax.llm_client.request import Message, Request
from e5jax.synth.text_spec import Wanted, describe

TEXTS = {
    name: {"type": "string", "description": describe("a text", Wanted("en", 3, 8))}
    for name in ("query", "positive", "negative")
}
SCHEMA = {
    "type": "object",
    "properties": TEXTS,
    "required": list(TEXTS),
    "additionalProperties": False,
}
MODELS = (LanguageModel("one", 1.0, 1.0, 2.0), LanguageModel("two", 3.0, 1.0, 2.0))


def request(name: object, said: str = "", **changed: object) -> Request:
    """One whose id and prompt are of that name."""
    made = Request(
        f"t/{name}/generate",
        (Message("user", f"{name}: {said or 'say something'}"),),
        SCHEMA,
        1.0,
        1.0,
        100,
    )
    return made._replace(**changed)


def endpoint(url: str, **changed: object) -> Endpoint:
    values = {
        "models": MODELS,
        "base_url": url,
        "key_variable": "E5JAX_TEST_KEY",
        "timeout": 20.0,
        "patience": 60.0,
    }
    return Endpoint(**{**values, **changed})
