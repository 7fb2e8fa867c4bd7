"""How an example came to be: one line of details.jsonl."""

import json
from typing import Any, NamedTuple

from e5jax.data.records import Example


class Details(NamedTuple):
    """Beside an example of the same id."""

    id: str
    family: str
    language: str
    target: str  # second language of a pair, or empty
    identified: bool  # whether an identifier found the languages to be those
    model: str
    attempt: int
    template: int
    choices: dict[str, str]  # placeholder: value
    words: dict[str, float]  # of query, positive and negative, as far as the reply has them
    grade: int | None
    prompt_tokens: int
    completion_tokens: int

    def to_json(self) -> str:
        """One line, without its newline."""
        return json.dumps(self._asdict(), ensure_ascii=False)


class Entry(NamedTuple):
    """An example with its details, on its way from the reply to the files."""

    details: Details
    example: Example

    def to_json(self) -> str:
        return json.dumps(
            {name: part._asdict() for name, part in self._asdict().items()}, ensure_ascii=False
        )


def parse_entry(line: str) -> Entry:
    """Inverse of `Entry.to_json`."""
    values: dict[str, Any] = json.loads(line)
    fields: dict[str, Any] = values["example"]
    lists: dict[str, Any] = {
        name: tuple(value) for name, value in fields.items() if isinstance(value, list)
    }
    return Entry(Details(**values["details"]), Example(**fields | lists))
