"""A value for any JSON schema: strings in the language and of the length that their descriptions ask for."""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from e5jax.synth.text_spec import Wanted, parse_description
from examples.demo_endpoint.sentences import text

ANYTHING = Wanted("en", 3, 12)
ITEMS = (5, 20)  # of an array that does not say


def fill(schema: Mapping[str, Any], random: Random) -> Any:
    """A value that the schema allows, as far as the kinds of schema go that generators use."""
    if "enum" in schema:
        return random.choice(schema["enum"])
    if "anyOf" in schema:
        return fill(random.choice(schema["anyOf"]), random)
    kind = schema.get("type", "string")
    return KINDS[kind if isinstance(kind, str) else kind[0]](schema, random)


def _object(schema: Mapping[str, Any], random: Random) -> dict[str, Any]:
    return {name: fill(part, random) for name, part in schema.get("properties", {}).items()}


def _array(schema: Mapping[str, Any], random: Random) -> list[Any]:
    least = schema.get("minItems", ITEMS[0])
    most = schema.get("maxItems", max(least, ITEMS[1]))
    return [fill(schema.get("items", {}), random) for _ in range(random.randint(least, most))]


def _integer(schema: Mapping[str, Any], random: Random) -> int:
    return random.randint(schema.get("minimum", 0), schema.get("maximum", 100))


def _number(schema: Mapping[str, Any], random: Random) -> float:
    return round(random.uniform(schema.get("minimum", 0), schema.get("maximum", 1)), 3)


def _string(schema: Mapping[str, Any], random: Random) -> str:
    return text(*(parse_description(schema.get("description", "")) or ANYTHING), random)


KINDS: dict[str, Callable[[Mapping[str, Any], Random], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda _, random: random.random() < 0.5,
    "null": lambda _, __: None,
}
