"""From text to ids: the instruction template, BOS and EOS, truncation.

Ids are built here and not by the tokenizer's own post-processor, whose BOS/EOS settings differ between versions of
transformers and have silently cost others their EOS.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer

from e5jax.config import QUERY
from e5jax.errors import ConfigError


class Templates(NamedTuple):
    """What texts of each side begin with. `{task}` in that of queries is their instruction; no instruction, no template."""

    query: str = QUERY
    document: str = ""

    def prefix(self, instruction: str | None) -> str:
        """Of a query with this instruction, empty for none; of a document, when it is None."""
        if instruction is None:
            return self.document
        return self.query.replace("{task}", instruction) if instruction or "{task}" not in self.query else ""

    def put(self, text: str, instruction: str | None) -> str:
        """A text as the model reads it."""
        return self.prefix(instruction) + text


E5 = Templates()


def read_tokenizer(path: Path) -> Tokenizer:
    """Of a tokenizer.json."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; convert the tokenizer to tokenizer.json with transformers' save_pretrained")
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises the base class itself
        if type(error) not in (Exception, UnicodeDecodeError):  # and nothing else is meant
            raise
        raise ConfigError(f"{path}: not a tokenizer.json ({error})") from error


class TextTokenizer:
    """Text -> `[BOS, text truncated, EOS]`, never more than `limit` ids, whatever the tokenizer's own settings."""

    def __init__(self, tokenizer: Tokenizer, bos: int, eos: int, limit: int, where: str = "tokenizer", templates: Templates = E5):
        if limit < 3:
            raise ConfigError(f"tokens.limit={limit}: must be at least 3 to hold BOS, a token and EOS")
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())  # a copy: the settings below are ours alone
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True  # "</s>" inside a text is text
        self.bos, self.eos, self.limit, self.templates = bos, eos, limit, templates
        for name, token in [("BOS", bos), ("EOS", eos)]:
            piece = self.tokenizer.id_to_token(token)
            if piece is None:
                raise ConfigError(
                    f"{where}: the model's {name} id {token} is not in the vocabulary of {self.tokenizer.get_vocab_size()}"
                )
            if {bos, eos} & set(self._bare([piece])[0]):
                raise ConfigError(f"{where}: the text {piece!r} becomes the {name} id itself; the tokenizer cannot be used safely")

    @classmethod
    def from_file(
        cls, path: Path, bos: int, eos: int, limit: int, templates: Templates = E5, added: Sequence[str] = ()
    ) -> "TextTokenizer":
        """Reads a tokenizer.json; tokens of `added` that it does not have come behind its own.

        They are not special, or the templates could not hold them: what is special is text wherever it stands.
        """
        tokenizer = read_tokenizer(path)
        new = [token for token in added if tokenizer.token_to_id(token) is None]
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in new])
        return cls(tokenizer, bos, eos, limit, str(path), templates)

    def __call__(self, texts: Sequence[str], limits: Sequence[int] | None = None) -> list[list[int]]:
        """The ids of each text, of which each may have a limit of its own below that of all."""
        if limits is None:
            limits = [self.limit] * len(texts)
        return [self._closed(ids, limit) for ids, limit in zip(self._bare(texts), limits, strict=True)]

    def _closed(self, ids: list[int], limit: int) -> list[int]:
        """The list itself, cut, with BOS and EOS: a copy of every text would cost a part of what tokenising it does."""
        del ids[limit - 2 :]
        ids.insert(0, self.bos)
        ids.append(self.eos)
        return ids

    def count(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in ids, BOS and EOS included, before truncation."""
        return [len(ids) + 2 for ids in self._bare(texts)]

    def _bare(self, texts: Sequence[str]) -> list[list[int]]:
        # Half a surrogate pair, which JSON can hold, is no text to the tokenizer: it becomes "?".
        valid = [text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(valid, add_special_tokens=False)]  # no offsets

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer with its special ids, limit and templates."""
        own = "" if self.templates == E5 else f" {self.templates}"
        text = f"{self.bos} {self.eos} {self.limit} {self.tokenizer.to_str()}{own}"
        return hashlib.sha256(text.encode()).hexdigest()
