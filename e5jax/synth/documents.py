"""Documents of the user's own that queries are wanted for."""

from pathlib import Path
from typing import Any

from e5jax.data.files import objects
from e5jax.errors import ConfigError
from e5jax.synth.languages import table
from e5jax.synth.plan import Document
from e5jax.synth.reasons import UnfitError
from e5jax.synth.reply import text_of


def read_documents(path: str) -> list[Document]:
    """The documents of a JSONL file: `text`, and perhaps `title` and `language`. Raises ConfigError `file:line: reason`."""
    if not Path(path).is_file():
        raise ConfigError(f"config.families.grounded.documents={path}: there is no such file")
    found = [_document(values, f"{path}:{number}") for number, values in objects(Path(path))]
    if not found:
        raise ConfigError(f"config.families.grounded.documents={path}: no documents in it")
    return found


def _document(values: dict[str, Any], where: str) -> Document:
    try:
        title, language = values.get("title") or "", values.get("language") or ""
        text = text_of(values.get("text"), "text")
        if title:
            text = f"{text_of(title, 'title')} {text}"
    except UnfitError as error:
        raise ConfigError(f"{where}: {error}") from error
    if language and language not in table():
        raise ConfigError(f"{where}: language {language!r} is no code of languages.tsv")
    return Document(text, language)
