import pytest
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from e5jax.data.tokenizer import train_tokenizer

CORPUS = [
    "Read the file header and return its fields.",
    "def read_file_header(path):\n    with open(path) as file:\n        return parseHeader(file.read(16))",
    "Write the header of a file; raise HTTPServerError on failure, see URLs.",
    "class HTTPServer:\n    def readFileHeader(self, layer2=None, int32=0):\n        return self.header['file']",
] * 5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CORPUS, 500)


@pytest.fixture(scope="module")
def literal(tokenizer) -> Tokenizer:
    """As TextTokenizer sets it: the text "<unk>" is text."""
    made = Tokenizer.from_str(tokenizer.to_str())
    made.encode_special_tokens = True
    return made


def pieces(tokenizer, text):
    return tokenizer.encode(text).tokens


def test_special_tokens_have_the_ids_of_mistral(tokenizer):
    assert [tokenizer.token_to_id(token) for token in ("<unk>", "<s>", "</s>")] == [0, 1, 2]


def test_vocabulary_is_no_larger_than_asked_for():
    assert train_tokenizer(CORPUS, 300).get_vocab_size() == 300


@pytest.mark.parametrize(
    "name",
    [
        "readFileHeader",
        "read_file_header",
        "ReadFileHeader",
        "READ_FILE_HEADER",
        " read\n\tfile  header",
    ],
)
def test_names_share_the_pieces_of_prose(tokenizer, name):
    assert (
        pieces(tokenizer, name)
        == pieces(tokenizer, "read file header")
        == ["read", "file", "header"]
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("HTTPServer", "http server"),
        ("layer2norm", "layer 2 norm"),
        ("parseHTTP", "parse http"),
        ("URLs", "urls"),
        ("x1=y2", "x 1 = y 2"),
    ],
)
def test_case_and_digits_divide_names(tokenizer, name, words):
    assert pieces(tokenizer, name) == pieces(tokenizer, words)


def test_leading_underscores_are_kept(tokenizer):
    assert pieces(tokenizer, "_read") != pieces(tokenizer, "read") != pieces(tokenizer, "__read__")


def test_no_piece_spans_two_words(tokenizer):
    assert not [piece for piece in tokenizer.get_vocab() if "Ġ" in piece and piece != "Ġ"]


@settings(max_examples=300, deadline=None)
@given(st.text())
@example("<unk>")
def test_any_text_but_whitespace_encodes_to_known_pieces(literal, text):
    ids = literal.encode(text).ids
    assert 0 not in ids
    assert ids or not text.strip()


@pytest.mark.parametrize(
    "text",
    ["日本語のテキスト", "مرحبا بالعالم", "😀👩‍👩‍👧", "ñandú", "naïve résumé", "\x00\x7f", "हिन्दी"],
)
def test_other_scripts_survive_as_bytes(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text).ids) == "".join(text.split())


def test_training_twice_gives_the_same_tokenizer(tokenizer):
    assert train_tokenizer(iter(CORPUS), 500).to_str() == tokenizer.to_str()


def test_ids_survive_text_and_transformers(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    other = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    again = Tokenizer.from_str(tokenizer.to_str())
    for text in [*CORPUS, "readFileHeader 日本 😀", "<s> a </s>"]:
        ids = tokenizer.encode(text).ids
        assert again.encode(text).ids == ids
        assert other(text)["input_ids"] == ids
