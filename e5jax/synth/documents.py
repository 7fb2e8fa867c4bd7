"""Documents of the user's own that queries are wanted for."""

from pathlib import Path

from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object
from e5jax.synth.languages import table
from e5jax.synth.plan import Document
from e5jax.synth.reasons import UnfitError
from e5jax.synth.reply import text_of


def read_documents(path: str) -> list[Document]:
    """The documents of a JSONL file: `text`, and perhaps `title` and `language`. Raises ConfigError `file:line: reason`."""
    if not Path(path).is_file():
        raise ConfigError(f"config.families.grounded.documents={path}: there is no such file")
    with Path(path).open("rb") as file:
        found = [_document(line, f"{path}:{number}") for number, line in enumerate(file, start=1) if line.strip()]
    if not found:
        raise ConfigError(f"config.families.grounded.documents={path}: no documents in it")
    return found


def _document(line: bytes, where: str) -> Document:
    try:
        values = parse_object(line)
        title, language = values.get("title") or "", values.get("language") or ""
        text = text_of(values.get("text"), "text")
        if title:
            text = f"{text_of(title, 'title')} {text}"
    except (RecordError, UnfitError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if language and language not in table():
        raise ConfigError(f"{where}: language {language!r} is no code of languages.tsv")
    return Document(text, language)
