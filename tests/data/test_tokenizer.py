"""Ids: BOS, text, EOS and nothing else, whatever the text and the tokenizer's settings."""

from pathlib import Path

import mistral_common
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from e5jax.data.tokenizer import E5, Templates, TextTokenizer, train_tokenizer
from e5jax.errors import ConfigError

BOS, EOS, LIMIT = 1, 2, 16
UNK, END = "<unk>", "</s>"
CORPUS = [
    "the quick brown fox jumps over a lazy dog",
    "Instruct: given a question, find the answer\nQuery: s </ >",
] * 3

words = st.sampled_from(
    [
        "</s>",
        "<s>",
        "<unk>",
        "</s",
        "s>",
        " ",
        "\n",
        "the fox",
        "</s></s>",
        "[INST]",
        "▁",
        "\x00",
        "é",
        "日本",
        "🙂",
        "\ud800",
    ]
)
wild = st.one_of(
    st.text(),
    st.text(st.characters()),
    st.lists(st.one_of(words, st.text(max_size=8))).map("".join),
)


def own() -> Tokenizer:
    """A tokenizer as `data` makes it."""
    return train_tokenizer(CORPUS, 400)


def mistral() -> Tokenizer:
    """The 32,000 pieces of Mistral-7B-v0.1, as in its tokenizer.json."""
    path = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ids = {pieces.id_to_piece(number): number for number in range(pieces.get_piece_size())}
    rank = {piece: pieces.get_score(number) for piece, number in ids.items()}
    plain = [
        piece
        for piece, number in ids.items()
        if not (pieces.is_control(number) or pieces.is_byte(number))
    ]
    pairs = [
        (piece[:cut], piece[cut:], rank[piece])
        for piece in plain
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    merges = [(left, right) for left, right, _ in sorted(pairs, key=lambda pair: -pair[2])]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token=UNK, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(piece, normalized=False, special=True) for piece in ("<unk>", "<s>", "</s>")]
    )
    return tokenizer


@pytest.fixture(scope="module", params=[own, mistral], ids=["own", "mistral"])
def tokenizer(request) -> Tokenizer:
    return request.param()


@pytest.fixture(scope="module")
def limited(tokenizer) -> TextTokenizer:
    return TextTokenizer(tokenizer, BOS, EOS, LIMIT)


@pytest.fixture(scope="module")
def unlimited(tokenizer) -> TextTokenizer:
    return TextTokenizer(tokenizer, BOS, EOS, 1_000_000)


@settings(max_examples=300, deadline=None)
@given(text=wild)
def test_any_text_has_one_bos_first_one_eos_last_and_keeps_the_limit(limited, unlimited, text):
    (ids,), (whole,) = limited([text]), unlimited([text])
    for found in (ids, whole):
        assert found[0] == BOS
        assert found[-1] == EOS
        assert found.count(BOS) == found.count(EOS) == 1
    assert len(ids) == min(len(whole), LIMIT)
    assert ids[:-1] == whole[: len(ids) - 1]
    assert limited.count([text]) == [len(whole)]


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(wild, max_size=5))
def test_a_text_has_the_same_ids_alone_and_among_others(limited, texts):
    assert limited(texts) == [limited([text])[0] for text in texts]


def test_a_long_text_is_cut_and_keeps_its_eos(limited, unlimited):
    text = "the quick brown fox " * 50
    (ids,), (whole,) = limited([text]), unlimited([text])
    assert len(ids) == LIMIT
    assert ids == [*whole[: LIMIT - 1], EOS]


def test_ids_between_bos_and_eos_are_the_text(unlimited):
    text = "the lazy dog"
    (ids,) = unlimited([text])
    assert unlimited.tokenizer.decode(ids[1:-1], skip_special_tokens=False).replace(
        " ", ""
    ) == text.replace(" ", "")


def test_mistrals_pieces_are_those_of_sentencepiece():
    path = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokenizer = TextTokenizer(mistral(), BOS, EOS, 512)
    for text in [
        *CORPUS,
        "Größe und Maß",
        "日本語のテキスト",
        "🙂🚀 emoji",
        "def f(x):\n    return x ** 2\t# tab",
        "two  spaces",
        "</s>",
    ]:
        assert tokenizer([text]) == [[BOS, *pieces.encode(text), EOS]]


def disturbed(tokenizer: Tokenizer) -> list[Tokenizer]:
    """The same tokenizer with settings that would change ids."""
    copies = [Tokenizer.from_str(tokenizer.to_str()) for _ in range(4)]
    copies[0].post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)], pair="<s> $A </s> $B:1"
    )
    copies[1].enable_truncation(5)
    copies[2].enable_padding(length=64, pad_id=EOS, pad_token=END)
    copies[3].encode_special_tokens = False
    return copies


@pytest.mark.parametrize(
    "number", range(4), ids=["post-processor", "truncation", "padding", "special tokens"]
)
def test_the_tokenizers_own_settings_do_not_matter(tokenizer, limited, number):
    other = disturbed(tokenizer)[number]
    texts = ["", "fox", "</s> the quick <s> brown fox jumps over a lazy dog", "dog " * 100]
    before = other.to_str()
    assert TextTokenizer(other, BOS, EOS, LIMIT)(texts) == limited(texts)
    assert other.to_str() == before


def test_a_file_gives_the_same_ids(tokenizer, limited, tmp_path):
    disturbed(tokenizer)[1].save(str(tmp_path / "tokenizer.json"))
    text = "the quick brown fox jumps over a lazy dog </s>"
    assert TextTokenizer.from_file(tmp_path / "tokenizer.json", BOS, EOS, LIMIT)([text]) == limited(
        [text]
    )


def test_a_refusal_names_the_file(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"/tokenizer\.json: the model's BOS id"):
        TextTokenizer.from_file(tmp_path / "tokenizer.json", 40_000, EOS, LIMIT)


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"tokenizer\.json: no such file"):
        TextTokenizer.from_file(tmp_path / "tokenizer.json", BOS, EOS, LIMIT)


@pytest.mark.parametrize("text", ["", "not json", "{}", "[1]"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        TextTokenizer.from_file(tmp_path / "tokenizer.json", BOS, EOS, LIMIT)


@pytest.mark.parametrize(("bos", "eos", "name"), [(40_000, EOS, "BOS"), (BOS, 40_000, "EOS")])
def test_special_ids_outside_the_vocabulary_are_refused(tokenizer, bos, eos, name):
    with pytest.raises(ConfigError, match=f"{name} id 40000 is not in the vocabulary of"):
        TextTokenizer(tokenizer, bos, eos, LIMIT)


@pytest.mark.parametrize(("bos", "eos", "name"), [(BOS, EOS, "BOS"), (0, EOS, "EOS")])
def test_a_tokenizer_whose_text_can_become_a_special_id_is_refused(bos, eos, name):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<s>": 1, END: 2, UNK: 3}, unk_token=UNK))
    tokenizer.normalizer = normalizers.Replace("a", "b")  # so that id 0 is no text's
    with pytest.raises(ConfigError, match=f"becomes the {name} id itself"):
        TextTokenizer(tokenizer, bos, eos, LIMIT)


def test_a_limit_without_room_for_text_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"tokens\.limit=2"):
        TextTokenizer(tokenizer, BOS, EOS, 2)


def test_the_fingerprint_tells_limits_special_ids_and_vocabularies_apart(tokenizer, limited):
    assert TextTokenizer(tokenizer, BOS, EOS, LIMIT).fingerprint == limited.fingerprint
    others = [
        (tokenizer, BOS, EOS, LIMIT + 1),
        (tokenizer, 0, EOS, LIMIT),
        (tokenizer, BOS, 0, LIMIT),
    ]
    others.append((train_tokenizer(CORPUS, 300), BOS, EOS, LIMIT))
    others.append((tokenizer, BOS, EOS, LIMIT, "", Templates("[Q]")))
    assert len({limited.fingerprint, *(TextTokenizer(*other).fingerprint for other in others)}) == 6


def test_the_template_is_that_of_the_paper_byte_for_byte():
    assert E5.put("Y", "X").encode() == b"Instruct: X\nQuery: Y"
    assert E5.put("Y", None) == E5.put("Y", "") == "Y"


def test_sides_have_templates_of_their_own():
    sides = Templates("[Q] {task}: ", "[D] ")
    assert sides.put("x", "find") == "[Q] find: x"
    assert sides.put("x", "") == "x"  # a query without a task
    assert sides.put("x", None) == "[D] x"
    assert Templates("[Q]").put("x", "") == Templates("[Q]").put("x", "any") == "[Q]x"


def test_new_tokens_come_behind_the_others_and_are_known_in_templates(tokenizer, tmp_path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    read = TextTokenizer.from_file(
        tmp_path / "tokenizer.json",
        BOS,
        EOS,
        LIMIT,
        Templates("[Q]", "[D]"),
        ("[Q]", "[D]", "</s>"),
    )
    assert read.tokenizer.get_vocab_size() == size + 2  # </s> was there
    (query, document) = read([read.templates.put("the fox </s>", side) for side in ("", None)])
    assert (query[:2], document[:2]) == ([BOS, size], [BOS, size + 1])
    assert query[2:] == document[2:]
    assert query.count(EOS) == 1


@given(text=st.text(), task=st.text(min_size=1))
def test_the_template_interprets_neither_text_nor_task(text, task):
    assert E5.put(text, task) == "Instruct: " + task + "\nQuery: " + text
    assert E5.put("{text} {task}", "{text}") == "Instruct: {text}\nQuery: {text} {task}"
