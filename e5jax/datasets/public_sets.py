"""The sets that E5-Mistral is trained on (arXiv 2401.00368, appendix A): one table, from which builders, mixture and docs read.

Instructions and ratios are those of Table 14 and appendix A, letter by letter; where the paper prints two instructions for
five sets, which set has which follows the training mix of echo-embeddings. Licences are what the publishers' pages or hub
cards say. No publisher states checksums, so those fields are empty: `prepare` records what it read, and compares it with
what its user gives.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from e5jax.errors import ConfigError

UNKNOWN = "unknown"


class Set(NamedTuple):
    """One public set: where it is from, and how training uses it."""

    name: str  # of its folder, and the `source` of its records
    title: str
    ratio: float  # of its examples that the paper samples
    instructions: tuple[str, ...]  # bare tasks for the query; two are taken in turn
    licence: str
    languages: tuple[str, ...]  # ISO 639
    formats: tuple[
        str, ...
    ]  # readers of the files below; the mix and our own records are read for every set
    files: tuple[str, ...] = ()  # what to download
    hub: tuple[
        tuple[str, str], ...
    ] = ()  # data sets of the Hugging Face hub and the files in them, for `--from hub`
    mix: str = ""  # its file in the training mix of echo-embeddings, without .jsonl
    symmetric: bool = (
        False  # query and passage are of one kind, for one of the instructions at least
    )
    relevance: int = 1  # least grade of a positive, where judgments have grades
    sha256: Mapping[str, str] = MappingProxyType(
        {}
    )  # file name -> checksum, where the publisher states one

    @property
    def all_formats(self) -> tuple[str, ...]:
        """Readers of its publisher's files, of the mix, and of our own records."""
        return tuple(dict.fromkeys((*self.formats, *(("e5-mix",) if self.mix else ()), "e5jax")))


_QUESTION = "Given a question, retrieve Wikipedia passages that answer the question"
_ANSWER = "Retrieve Wikipedia passages that answer the question"
_CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
_MARCO = "non-commercial research only"
_DPR = "https://dl.fbaipublicfiles.com/dpr/data/retriever/biencoder-"
_RANKING = "https://msmarco.z22.web.core.windows.net/msmarcoranking/"
_ST = "sentence-transformers/embedding-training-data"
_FEVER = "https://fever.ai/download/fever/"

SETS = (
    Set(
        "eli5",
        "ELI5",
        0.1,
        ("Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",),
        UNKNOWN,
        ("en",),
        ("votes", "pairs"),
        ("http://dl.fbaipublicfiles.com/KILT/eli5-train-kilt.jsonl",),
        ((_ST, "eli5_question_answer.jsonl.gz"),),
        "eli5_question_answer",
    ),
    Set(
        "hotpotqa",
        "HotpotQA",
        1,
        ("Given a multi-hop question, retrieve documents that can help answer the question",),
        "CC BY-SA 4.0",
        ("en",),
        ("hotpotqa", "beir"),
        ("http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_train_v1.1.json",),
        (),
        "hotpot_qa",
    ),
    Set(
        "fever",
        "FEVER",
        1,
        ("Given a claim, retrieve documents that support or refute the claim",),
        "CC BY-SA 3.0, GPL 3.0",
        ("en",),
        ("fever", "beir"),
        (_FEVER + "train.jsonl", _FEVER + "wiki-pages.zip"),
        (),
        "fever",
    ),
    Set(
        "miracl",
        "MIRACL",
        1,
        (_QUESTION,),
        "Apache 2.0",
        (
            "ar",
            "bn",
            "en",
            "es",
            "fa",
            "fi",
            "fr",
            "hi",
            "id",
            "ja",
            "ko",
            "ru",
            "sw",
            "te",
            "th",
            "zh",
        ),
        ("miracl", "tevatron"),
        (
            "https://huggingface.co/datasets/miracl/miracl",
            "https://huggingface.co/datasets/miracl/miracl-corpus",
        ),
        (
            ("miracl/miracl", "miracl-v1.0-*/topics/*-train.tsv"),
            ("miracl/miracl", "miracl-v1.0-*/qrels/*-train.tsv"),
            ("miracl/miracl-corpus", "miracl-corpus-v1.0-*/docs-*.jsonl.gz"),
        ),
        "miracl",
    ),
    Set(
        "msmarco_passage",
        "MS MARCO passage",
        0.5,
        ("Given a web search query, retrieve relevant passages that answer the query",),
        _MARCO,
        ("en",),
        ("msmarco", "tevatron"),
        (_RANKING + "collectionandqueries.tar.gz", _RANKING + "qidpidtriples.train.full.2.tsv.gz"),
        (("Tevatron/msmarco-passage", "train.jsonl.gz"),),
        "msmarco_passage",
    ),
    Set(
        "msmarco_document",
        "MS MARCO document",
        0.2,
        ("Given a web search query, retrieve relevant documents that answer the query",),
        _MARCO,
        ("en",),
        ("msmarco",),
        tuple(
            _RANKING + f"msmarco-{name}.tsv.gz"
            for name in ("docs", "doctrain-queries", "doctrain-qrels")
        ),
        (),
        "msmarco_document",
    ),
    Set(
        "nq",
        "NQ",
        1,
        (_QUESTION,),
        "CC BY-SA 3.0 (questions); passages and negatives of DPR: unknown",
        ("en",),
        ("dpr", "tevatron"),
        (_DPR + "nq-train.json.gz",),
        (("Tevatron/wikipedia-nq", "*train*.jsonl.gz"),),
        "nq",
    ),
    Set(
        "nli",
        "NLI (SNLI and MultiNLI)",
        1,
        (
            "Given a premise, retrieve a hypothesis that is entailed by the premise",
            "Retrieve semantically similar text",
        ),
        "CC BY 4.0 (SNLI); CC BY 3.0, CC BY-SA 3.0, MIT, OANC (MultiNLI)",
        ("en",),
        ("pairs",),
        (
            "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/nli_for_simcse.csv",
        ),
        (("princeton-nlp/datasets-for-simcse", "nli_for_simcse.csv"),),
        "allnli",
        True,
    ),
    Set(
        "squad",
        "SQuAD",
        1,
        (_ANSWER,),
        "CC BY-SA 4.0 (questions); passages and negatives of DPR: unknown",
        ("en",),
        ("dpr", "tevatron"),
        (_DPR + "squad1-train.json.gz",),
        (("Tevatron/wikipedia-squad", "*train*.jsonl.gz"),),
        "squad",
    ),
    Set(
        "triviaqa",
        "TriviaQA",
        1,
        (_ANSWER,),
        UNKNOWN,
        ("en",),
        ("dpr", "tevatron"),
        (_DPR + "trivia-train.json.gz",),
        (("Tevatron/wikipedia-trivia", "*train*.jsonl.gz"),),
        "trivia_qa",
    ),
    Set(
        "quora",
        "Quora duplicate questions",
        0.1,
        (
            "Given a question, retrieve questions that are semantically equivalent to the given question",
            "Find questions that have the same meaning as the input question",
        ),
        "Quora's terms of the release",
        ("en",),
        ("quora", "pairs"),
        ("http://qim.fs.quoracdn.net/quora_duplicate_questions.tsv",),
        ((_ST, "quora_duplicates.jsonl.gz"),),
        "quora_duplicates",
        True,
    ),
    Set(
        "mrtydi",
        "Mr. TyDi",
        1,
        (_QUESTION,),
        "Apache 2.0",
        ("ar", "bn", "en", "fi", "id", "ja", "ko", "ru", "sw", "te", "th"),
        ("tevatron",),
        ("https://huggingface.co/datasets/castorini/mr-tydi",),
        (("castorini/mr-tydi", "mrtydi-v1.1-[!c]*/train.jsonl.gz"),),  # all but `combined`
        "mrtydi",
    ),
    Set(
        "dureader",
        "DuReader-retrieval",
        1,
        (_CHINESE,),
        "Apache 2.0",
        ("zh",),
        ("rocketqa", "tevatron"),
        (
            "https://github.com/PaddlePaddle/RocketQA/tree/main/research/DuReader-Retrieval-Baseline",
        ),
        (("zyznull/dureader-retrieval-ranking", "train.jsonl.gz"),),
        "dureader",
    ),
    Set(
        "t2ranking",
        "T2Ranking",
        0.5,
        (_CHINESE,),
        "Apache 2.0",
        ("zh",),
        ("msmarco",),
        ("https://huggingface.co/datasets/THUIR/T2Ranking",),
        tuple(
            ("THUIR/T2Ranking", f"data/{name}.tsv")
            for name in ("collection", "queries.train", "qrels.train")
        ),
        "t2ranking",
        relevance=2,  # of 0 to 3
    ),
    Set("synthetic", "synthetic", 1, (), "terms of the model that wrote it", (), ("e5jax",)),
)


def named(name: str) -> Set:
    """The set of this name. Raises ConfigError."""
    for chosen in SETS:
        if chosen.name == name:
            return chosen
    raise ConfigError(
        f"set {name!r}: there is none; use one of {', '.join(chosen.name for chosen in SETS)}"
    )


def in_mix(name: str) -> tuple[Set, tuple[str, ...]] | None:
    """The set that a file of the mix holds, and its instructions: `NAME_split1` has the first, `NAME_split2` the second."""
    for chosen in SETS:
        if chosen.mix and name == chosen.mix:
            return chosen, chosen.instructions
        for i, instruction in enumerate(
            chosen.instructions if len(chosen.instructions) > 1 else ()
        ):
            if name == f"{chosen.mix}_split{i + 1}":
                return chosen, (instruction,)
    return None
