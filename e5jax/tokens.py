"""From text to ids: the instruction template, BOS and EOS, truncation.

Ids are built here and not by the tokenizer's own post-processor, whose BOS/EOS settings differ between versions of
transformers and have silently cost others their EOS.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from e5jax.errors import ConfigError

# The E5-Mistral query template (arXiv 2401.00368, section 3.2); documents stay bare.
TEMPLATE = "Instruct: {task}\nQuery: {text}"
QUERY_PREFIX = "Instruct: {task}\nQuery: "


def query_text(text: str, task: str | None) -> str:
    """A query with its task; no task, no template."""
    return QUERY_PREFIX.replace("{task}", task) + text if task else text


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

    def __init__(self, tokenizer: Tokenizer, bos: int, eos: int, limit: int, where: str = "tokenizer"):
        if limit < 3:
            raise ConfigError(f"tokens.limit={limit}: must be at least 3 to hold BOS, a token and EOS")
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())  # a copy: the settings below are ours alone
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True  # "</s>" inside a text is text
        self.bos, self.eos, self.limit = bos, eos, limit
        for name, token in [("BOS", bos), ("EOS", eos)]:
            piece = self.tokenizer.id_to_token(token)
            if piece is None:
                raise ConfigError(
                    f"{where}: the model's {name} id {token} is not in the vocabulary of {self.tokenizer.get_vocab_size()}"
                )
            if {bos, eos} & set(self._bare([piece])[0]):
                raise ConfigError(f"{where}: the text {piece!r} becomes the {name} id itself; the tokenizer cannot be used safely")

    @classmethod
    def from_file(cls, path: Path, bos: int, eos: int, limit: int) -> "TextTokenizer":
        """Reads a tokenizer.json."""
        return cls(read_tokenizer(path), bos, eos, limit, str(path))

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
        """SHA-256 of the tokenizer with its special ids and limit."""
        text = f"{self.bos} {self.eos} {self.limit} {self.tokenizer.to_str()}"
        return hashlib.sha256(text.encode()).hexdigest()
