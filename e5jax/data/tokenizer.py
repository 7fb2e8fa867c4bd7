"""From text to ids: the instruction template, what stands before and behind a text, truncation.

Ids are built here and not by the tokenizer's own post-processor, whose BOS/EOS settings differ between versions of
transformers and have silently cost others their EOS. Where a sentence-transformers folder has settings of its own, a `Frame` holds
what they come to.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from tokenizers import AddedToken, Tokenizer, normalizers

from e5jax.config import QUERY
from e5jax.errors import ConfigError
from e5jax.jsonl import flag, token_of


class Templates(NamedTuple):
    """What texts of each side begin with. `{task}` in that of queries is their instruction; no instruction, no template."""

    query: str = QUERY
    document: str = ""

    def prefix(self, instruction: str | None) -> str:
        """Of a query with this instruction, empty for none; of a document, when it is None."""
        if instruction is None:
            return self.document
        return (
            self.query.replace("{task}", instruction)
            if instruction or "{task}" not in self.query
            else ""
        )

    def put(self, text: str, instruction: str | None) -> str:
        """A text as the model reads it."""
        return self.prefix(instruction) + text


E5 = Templates()


class Frame(NamedTuple):
    """What transformers puts around a text, by the settings of a tokenizer, and which tokens are special."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    split_special: bool  # True: "</s>" inside a text is text, and not the special token
    special: frozenset[
        int
    ]  # ids of special tokens, by which transformers knows that a prompt ends with one

    def prompt_length(self, ids: Sequence[int]) -> int:
        """How many ids of a framed prompt belong to it, as sentence-transformers counts them: all but a special one at the end."""
        return len(ids) - (bool(ids) and ids[-1] in self.special)


def read_frame(path: Path, config: Mapping[str, Any]) -> Frame:
    """Of a tokenizer.json and its tokenizer_config.json, as transformers 5 reads them. Raises ConfigError."""
    at, tokenizer = path.with_name("tokenizer_config.json"), read_tokenizer(path)
    if (side := config.get("truncation_side", "right")) != "right":
        raise ConfigError(f"{at}: truncation_side={side!r}; only right is supported")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    names = [name for name in config if name.endswith("_token") and not name.startswith("add_")]
    texts = {name: token_of(config, name, str(at)) for name in names}
    more = [
        *(config.get("extra_special_tokens") or ()),
        *(config.get("additional_special_tokens") or ()),
    ]
    tokens = [
        *texts.values(),
        *(one.get("content") if isinstance(one, dict) else one for one in more),
    ]
    ids = (tokenizer.token_to_id(token) for token in tokens if isinstance(token, str))
    begin, end = _around(tokenizer, texts, config, at)
    return Frame(
        begin,
        end,
        flag(config, "split_special_tokens", False, str(at)),
        frozenset(one for one in ids if one is not None),
    )


def _around(
    tokenizer: Tokenizer, texts: Mapping[str, str | None], config: Mapping[str, Any], at: Path
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and behind a text: those that the post-processor of tokenizer.json adds.

    Only Llama's class has settings for BOS and EOS that go before it, as transformers 4 reads them; published Mistral embedders
    rely on these for their EOS. transformers 5 does not look at them.
    """
    llama = str(config.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer"
    if not llama or (
        tokenizer.post_processor is not None
        and not {"add_bos_token", "add_eos_token"} & config.keys()
    ):
        probe = tokenizer.encode("a", add_special_tokens=False).ids
        framed = tokenizer.encode("a").ids
        start = next((i for i in range(len(framed)) if framed[i : i + len(probe)] == probe), None)
        if start is None:
            raise ConfigError(
                f"{at.with_name('tokenizer.json')}: a post-processor that changes the ids of a text is not supported"
            )
        return tuple(framed[:start]), tuple(framed[start + len(probe) :])
    adds = {
        "bos": flag(config, "add_bos_token", True, str(at)),
        "eos": flag(config, "add_eos_token", False, str(at)),
    }
    usual = {"bos": "<s>", "eos": "</s>"}
    ids: dict[str, tuple[int, ...]] = {"bos": (), "eos": ()}
    for name in (name for name, add in adds.items() if add):
        token = texts.get(f"{name}_token") or usual[name]
        if (number := tokenizer.token_to_id(token)) is None:
            raise ConfigError(
                f"{at}: {name}_token={token!r} is not in the vocabulary of tokenizer.json"
            )
        ids[name] = (number,)
    return ids["bos"], ids["eos"]


def read_tokenizer(path: Path, lower: bool = False) -> Tokenizer:
    """Of a tokenizer.json; `lower` puts lower-casing before its normalizer, as sentence-transformers does."""
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; convert the tokenizer to tokenizer.json with transformers' save_pretrained"
        )
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises the base class itself
        if type(error) not in (Exception, UnicodeDecodeError):  # and nothing else is meant
            raise
        raise ConfigError(f"{path}: not a tokenizer.json ({error})") from error
    if lower:
        own = tokenizer.normalizer
        parts = (
            list(cast(Iterable, own))
            if isinstance(own, normalizers.Sequence)
            else []
            if own is None
            else [own]
        )
        if not any(isinstance(part, normalizers.Lowercase) for part in parts):
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
    return tokenizer


class TextTokenizer:
    """Text -> `[BOS, text truncated, EOS]`, never more than `limit` ids, whatever the tokenizer's own settings.

    With a `frame` it is that of a folder instead of BOS and EOS.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        bos: int | None,
        eos: int | None,
        limit: int,
        where: str = "tokenizer",
        templates: Templates = E5,
        frame: Frame | None = None,
    ):
        self.tokenizer = Tokenizer.from_str(
            tokenizer.to_str()
        )  # a copy: the settings below are ours alone
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = (
            frame is None or frame.split_special
        )  # "</s>" inside a text is text
        self.bos, self.eos, self.limit, self.templates = bos, eos, limit, templates
        self.frame = frame or self._bos_and_eos(bos, eos, where)
        least = len(self.frame.begin) + len(self.frame.end) + 1
        if limit < least:
            raise ConfigError(
                f"tokens.limit={limit}: must be at least {least} to hold BOS, a token and EOS"
            )

    def _bos_and_eos(self, bos: int | None, eos: int | None, where: str) -> Frame:
        for name, token in [("BOS", bos), ("EOS", eos)]:
            if token is None:
                raise ConfigError(
                    f"{where}: the model has no {name}; set {name.lower()}_token_id in its config.json"
                )
            piece = self.tokenizer.id_to_token(token)
            if piece is None:
                raise ConfigError(
                    f"{where}: the model's {name} id {token} is not in the vocabulary of {self.tokenizer.get_vocab_size()}"
                )
            if {bos, eos} & set(self._bare([piece])[0]):
                raise ConfigError(
                    f"{where}: the text {piece!r} becomes the {name} id itself; the tokenizer cannot be used safely"
                )
        assert bos is not None, "looked at above"
        assert eos is not None, "looked at above"
        return Frame((bos,), (eos,), True, frozenset((bos, eos)))

    @classmethod
    def from_file(
        cls,
        path: Path,
        bos: int | None,
        eos: int | None,
        limit: int,
        templates: Templates = E5,
        added: Sequence[str] = (),
        *,
        lower: bool = False,
        frame: Frame | None = None,
    ) -> "TextTokenizer":
        """Reads a tokenizer.json; tokens of `added` that it does not have come behind its own.

        They are not special, or the templates could not hold them: what is special is text wherever it stands.
        """
        tokenizer = read_tokenizer(path, lower)
        new = [token for token in added if tokenizer.token_to_id(token) is None]
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in new])
        return cls(tokenizer, bos, eos, limit, str(path), templates, frame)

    def __call__(
        self, texts: Sequence[str], limits: Sequence[int] | None = None
    ) -> list[list[int]]:
        """The ids of each text, of which each may have a limit of its own below that of all."""
        if limits is None:
            limits = [self.limit] * len(texts)
        return [
            self._closed(ids, limit) for ids, limit in zip(self._bare(texts), limits, strict=True)
        ]

    def _closed(self, ids: list[int], limit: int) -> list[int]:
        """The list itself, cut, within its frame: a copy of every text would cost a part of what tokenising it does."""
        begin, end = self.frame.begin, self.frame.end
        del ids[limit - len(begin) - len(end) :]
        ids[:0] = begin
        ids.extend(end)
        return ids

    @property
    def pieces(self) -> tuple[str, str]:
        """BOS and EOS as the vocabulary writes them."""
        bos, eos = (
            "" if one is None else self.tokenizer.id_to_token(one) or ""
            for one in (self.bos, self.eos)
        )
        return bos, eos

    def count(self, texts: Sequence[str]) -> list[int]:
        """Length of each text in ids, its frame included, before truncation."""
        more = len(self.frame.begin) + len(self.frame.end)
        return [len(ids) + more for ids in self._bare(texts)]

    def _bare(self, texts: Sequence[str]) -> list[list[int]]:
        # Half a surrogate pair, which JSON can hold, is no text to the tokenizer: it becomes "?".
        valid = [
            text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
            for text in texts
        ]
        return [
            encoding.ids
            for encoding in self.tokenizer.encode_batch_fast(valid, add_special_tokens=False)
        ]  # no offsets

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer with its special ids, limit and templates."""
        own = "" if self.templates == E5 else f" {self.templates}"
        text = f"{self.bos} {self.eos} {self.limit} {self.tokenizer.to_str()}{own}"
        return hashlib.sha256(text.encode()).hexdigest()
