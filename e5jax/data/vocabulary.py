"""A tokenizer for a model that starts from scratch: texts flow in, a `tokenizers.Tokenizer` flows out."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = ["<unk>", "<s>", "</s>"]  # ids 0, 1, 2 as in Mistral

_WORD_BORDER = (
    r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})"  # read|File, HTTP|Server, but URLs
)
# Letters, digits, underscores or punctuation; not matched, hence dropped: whitespace, and the _ of read_file (not of _private).
_PIECE = r"[\p{L}\p{M}]+|\p{N}+|(?<![\p{L}\p{N}])_+|_{2,}|_+(?![\p{L}\p{N}])|[^\s\p{L}\p{M}\p{N}_]+"


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Byte-level BPE of at most `size` pieces, for prose and for code alike.

    `read the file header`, `readFileHeader` and `read_file_header` share the pieces of their words: names are split where
    case or kind of character changes. Lost are case, whitespace (indentation too) and single underscores inside names;
    all else survives, any script and emoji as bytes. Nothing is added at the beginning or the end. The result depends on
    the texts only.
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
