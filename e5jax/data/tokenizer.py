"""From text to ids: templates of instructions, the tokens around a text, truncation.

Ids are built here and not by the tokenizer's own post-processor, whose BOS and EOS settings differ
between versions of transformers, so that models lost their EOS unnoticed. If a
sentence-transformers folder has settings of its own, a `Frame` contains their effect.

`train_tokenizer` trains a tokenizer for a model that starts from scratch.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from e5jax.config import QUERY
from e5jax.errors import ConfigError
from e5jax.jsonl import flag, token_of


class Templates(NamedTuple):
    """Prefixes of queries, in which `{task}` is their instruction, and of documents."""

    query: str = QUERY
    document: str = ""

    def prefix(self, instruction: str | None) -> str:
        """Returns the prefix of a query (empty instruction: none) or, if None, of a document."""
        if instruction is None:
            return self.document
        if not instruction and "{task}" in self.query:
            return ""
        return self.query.replace("{task}", instruction)

    def put(self, text: str, instruction: str | None) -> str:
        """Returns the text with its prefix."""
        return self.prefix(instruction) + text


E5 = Templates()


class Frame(NamedTuple):
    """The tokens that transformers adds around a text, and which tokens are special."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    split_special: bool  # whether "</s>" inside a text is plain text, and not the special token
    special: frozenset[int]  # ids, by which transformers knows that a prompt ends with such a token

    def prompt_length(self, ids: Sequence[int]) -> int:
        """Returns the length of a framed prompt as sentence-transformers counts it."""
        return len(ids) - (bool(ids) and ids[-1] in self.special)


def read_frame(path: Path, config: Mapping[str, Any]) -> Frame:
    """Reads tokenizer.json and tokenizer_config.json as transformers 5 does. Raises ConfigError."""
    where, tokenizer = path.with_name("tokenizer_config.json"), read_tokenizer(path)
    if (side := config.get("truncation_side", "right")) != "right":
        raise ConfigError(f"{where}: truncation_side={side!r}; only right is supported")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    names = [name for name in config if name.endswith("_token") and not name.startswith("add_")]
    named = {name: token_of(config, name, str(where)) for name in names}
    lists = ("extra_special_tokens", "additional_special_tokens")
    more = [token for name in lists for token in config.get(name) or ()]
    tokens = [token.get("content") if isinstance(token, dict) else token for token in more]
    tokens = [token for token in (*named.values(), *tokens) if isinstance(token, str)]
    ids = [tokenizer.token_to_id(token) for token in tokens]
    special = frozenset(number for number in ids if number is not None)
    begin, end = _around(tokenizer, named, config, where)
    return Frame(begin, end, flag(config, "split_special_tokens", False, str(where)), special)


def _around(
    tokenizer: Tokenizer, tokens: Mapping[str, str | None], config: Mapping[str, Any], where: Path
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a text: those that the post-processor of tokenizer.json adds.

    Only Llama's class has settings for BOS and EOS that take precedence, as transformers 4 reads
    them; published Mistral embedders rely on these for their EOS. transformers 5 ignores them.
    """
    is_llama = str(config.get("tokenizer_class")).removesuffix("Fast") == "LlamaTokenizer"
    if not is_llama or (
        tokenizer.post_processor is not None
        and not {"add_bos_token", "add_eos_token"} & config.keys()
    ):
        probe = tokenizer.encode("a", add_special_tokens=False).ids
        framed = tokenizer.encode("a").ids
        start = next((i for i in range(len(framed)) if framed[i : i + len(probe)] == probe), None)
        if start is None:
            raise ConfigError(
                f"{where.with_name('tokenizer.json')}: a post-processor that changes the ids of a "
                "text is not supported"
            )
        return tuple(framed[:start]), tuple(framed[start + len(probe) :])
    ids: list[tuple[int, ...]] = []
    for name, default, usual in (("bos", True, "<s>"), ("eos", False, "</s>")):
        token = tokens.get(f"{name}_token") or usual
        if not flag(config, f"add_{name}_token", default, str(where)):
            ids.append(())
        elif (number := tokenizer.token_to_id(token)) is None:
            raise ConfigError(
                f"{where}: {name}_token={token!r} is not in the vocabulary of tokenizer.json"
            )
        else:
            ids.append((number,))
    return ids[0], ids[1]


def read_tokenizer(path: Path, lower: bool = False) -> Tokenizer:
    """Reads a tokenizer.json. `lower` lower-cases text first, as sentence-transformers does."""
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such file; convert the tokenizer to tokenizer.json with transformers' "
            "save_pretrained"
        )
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises the base class itself,
        if type(error) not in (Exception, UnicodeDecodeError):  # so nothing else is caught
            raise
        raise ConfigError(f"{path}: not a tokenizer.json ({error})") from error
    if lower:
        own = tokenizer.normalizer
        parts = list(cast(Iterable, own)) if isinstance(own, normalizers.Sequence) else [own]
        parts = [part for part in parts if part is not None]
        if not any(isinstance(part, normalizers.Lowercase) for part in parts):
            tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
    return tokenizer


class TextTokenizer:
    """Text -> `[BOS, truncated text, EOS]`, at most `limit` ids; a `frame` replaces BOS and EOS."""

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
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())  # a copy, whose settings we change
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        # "</s>" inside a text is plain text.
        self.tokenizer.encode_special_tokens = frame is None or frame.split_special
        self.bos, self.eos, self.limit, self.templates = bos, eos, limit, templates
        self.frame = frame or self._bos_and_eos(bos, eos, where)
        least = len(self.frame.begin) + len(self.frame.end) + 1
        if limit < least:
            raise ConfigError(
                f"tokens.limit={limit}: must be at least {least} to hold BOS, a token and EOS"
            )

    def _bos_and_eos(self, bos: int | None, eos: int | None, where: str) -> Frame:
        ids = []
        for name, token in [("BOS", bos), ("EOS", eos)]:
            if token is None:
                raise ConfigError(
                    f"{where}: the model has no {name}; set {name.lower()}_token_id in its "
                    "config.json"
                )
            piece = self.tokenizer.id_to_token(token)
            if piece is None:
                raise ConfigError(
                    f"{where}: the model's {name} id {token} is not in the vocabulary of "
                    f"{self.tokenizer.get_vocab_size()}"
                )
            if {bos, eos} & set(self._encode([piece])[0]):
                raise ConfigError(
                    f"{where}: the text {piece!r} becomes the {name} id itself; the tokenizer "
                    "cannot be used safely"
                )
            ids.append(token)
        return Frame((ids[0],), (ids[1],), True, frozenset(ids))

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
        """Reads a tokenizer.json, and appends the tokens of `added` that it does not have.

        These are not special tokens, since special tokens inside a text, and so inside a template,
        are encoded as plain text.
        """
        tokenizer = read_tokenizer(path, lower)
        new = [token for token in added if tokenizer.token_to_id(token) is None]
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in new])
        return cls(tokenizer, bos, eos, limit, str(path), templates, frame)

    def __call__(
        self, texts: Sequence[str], limits: Sequence[int] | None = None
    ) -> list[list[int]]:
        """Returns the ids of each text. `limits`: at most so many for each text."""
        if limits is None:
            limits = [self.limit] * len(texts)
        pairs = zip(self._encode(texts), limits, strict=True)
        return [self._frame(ids, limit) for ids, limit in pairs]

    def _frame(self, ids: list[int], limit: int) -> list[int]:
        """Truncates and frames the list in place: copies would cost a part of tokenising."""
        begin, end = self.frame.begin, self.frame.end
        del ids[limit - len(begin) - len(end) :]
        ids[:0] = begin
        ids.extend(end)
        return ids

    @property
    def pieces(self) -> tuple[str, str]:
        """BOS and EOS as the vocabulary writes them; empty if there are none."""
        bos, eos = (
            "" if token is None else self.tokenizer.id_to_token(token) or ""
            for token in (self.bos, self.eos)
        )
        return bos, eos

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns the length of each text in ids, with its frame, before truncation."""
        more = len(self.frame.begin) + len(self.frame.end)
        return [len(ids) + more for ids in self._encode(texts)]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        # The tokenizer does not accept half a surrogate pair, which JSON can contain: it becomes ?.
        valid = [
            text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
            for text in texts
        ]
        # The fast variant computes no offsets.
        encodings = self.tokenizer.encode_batch_fast(valid, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer with its special ids, limit and templates."""
        own = "" if self.templates == E5 else f" {self.templates}"
        text = f"{self.bos} {self.eos} {self.limit} {self.tokenizer.to_str()}{own}"
        return hashlib.sha256(text.encode()).hexdigest()


# --- training ------------------------------------------------------------------------------------

SPECIAL = ["<unk>", "<s>", "</s>"]  # ids 0, 1, 2 as in Mistral

# read|File, HTTP|Server, but URLs
_WORD_BORDER = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})"
# Letters, digits, underscores or punctuation. Whitespace is not matched, hence dropped, as is the _
# of read_file, but not of _private.
_PIECE = r"[\p{L}\p{M}]+|\p{N}+|(?<![\p{L}\p{N}])_+|_{2,}|_+(?![\p{L}\p{N}])|[^\s\p{L}\p{M}\p{N}_]+"


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Trains a byte-level BPE of at most `size` pieces for prose and code.

    `read the file header`, `readFileHeader` and `read_file_header` share the pieces of their words:
    names are split where case or kind of character changes. Case, whitespace (indentation too) and
    single underscores inside names are lost; all else survives, any script and emoji as bytes.
    Nothing is added at the beginning or the end. The result depends on the texts only.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[0]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(_WORD_BORDER), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECE), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
