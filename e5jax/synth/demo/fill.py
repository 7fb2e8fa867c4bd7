"""A value for any JSON schema: strings in the language and of the length that their descriptions ask for."""

from collections.abc import Mapping
from random import Random
from typing import Any

from e5jax.synth.demo.sentences import text
from e5jax.synth.request import Wanted, parse_description

ANYTHING = Wanted("en", 3, 12)
ITEMS = (5, 20)  # of an array that does not say


def fill(schema: Mapping[str, Any], random: Random) -> Any:
    """A value that the schema allows, as far as the kinds of schema go that generators use."""
    if "enum" in schema:
        return random.choice(schema["enum"])
    if "anyOf" in schema:
        return fill(random.choice(schema["anyOf"]), random)
    kind = schema.get("type", "string")
    match kind if isinstance(kind, str) else kind[0]:
        case "object":
            return {name: fill(part, random) for name, part in schema.get("properties", {}).items()}
        case "array":
            least = schema.get("minItems", ITEMS[0])
            most = schema.get("maxItems", max(least, ITEMS[1]))
            return [fill(schema.get("items", {}), random) for _ in range(random.randint(least, most))]
        case "integer":
            return random.randint(schema.get("minimum", 0), schema.get("maximum", 100))
        case "number":
            return round(random.uniform(schema.get("minimum", 0), schema.get("maximum", 1)), 3)
        case "boolean":
            return random.random() < 0.5
        case "null":
            return None
    return text(*(parse_description(schema.get("description", "")) or ANYTHING), random)
