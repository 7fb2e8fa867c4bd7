"""The public training mix of E5-Mistral as the authors of echo-embeddings publish it: one JSONL file a set.

A line has `query`, `positive` and `negative`, bare texts, each a string or a list. The instruction follows from the name
of the set (arXiv 2401.00368, Table 14). Where a set has two, lines take them in turn, unless the file is one of the halves
`NAME_split1` and `NAME_split2` that LLM2Vec trains on. Documents have no instruction, as in the paper.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from e5jax.data.readers.lines import Line, examples, files, name_of
from e5jax.data.readers.outcome import Options, Outcome
from e5jax.data.readers.texts import texts
from e5jax.errors import RecordError
from e5jax.jsonl import parse_object
from e5jax.records import Example

_QUESTION = "Given a question, retrieve Wikipedia passages that answer the question"
_ANSWER = "Retrieve Wikipedia passages that answer the question"
_CHINESE = "Given a Chinese search query, retrieve web passages that answer the question"
_QUORA = (
    "Given a question, retrieve questions that are semantically equivalent to the given question",
    "Find questions that have the same meaning as the input question",
)
_NLI = (
    "Given a premise, retrieve a hypothesis that is entailed by the premise",
    "Retrieve semantically similar text",
)

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "allnli": _NLI,
    "allnli_split1": _NLI[:1],
    "allnli_split2": _NLI[1:],
    "dureader": (_CHINESE,),
    "eli5_question_answer": ("Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",),
    "fever": ("Given a claim, retrieve documents that support or refute the claim",),
    "hotpot_qa": ("Given a multi-hop question, retrieve documents that can help answer the question",),
    "miracl": (_QUESTION,),
    "mrtydi": (_QUESTION,),
    "msmarco_document": ("Given a web search query, retrieve relevant documents that answer the query",),
    "msmarco_passage": ("Given a web search query, retrieve relevant passages that answer the query",),
    "nq": (_QUESTION,),
    "quora_duplicates": _QUORA,
    "quora_duplicates_split1": _QUORA[:1],
    "quora_duplicates_split2": _QUORA[1:],
    "squad": (_ANSWER,),
    "t2ranking": (_CHINESE,),
    "trivia_qa": (_ANSWER,),
}


def read(path: Path, options: Options) -> Iterator[Outcome]:
    """A file or a folder of `*.jsonl`; an instruction of the options goes before that of the set."""
    for file in files(path, ".jsonl"):
        known = (options.instruction,) if options.instruction else INSTRUCTIONS.get(name_of(file), ("",))
        yield from examples(file, options, partial(_example, known, options))


def _example(known: tuple[str, ...], options: Options, line: Line, source: str) -> Example:
    values = parse_object(line.text)
    query = texts(values, "query")
    if len(query) > 1:
        raise RecordError(f"query: must be one string: not {len(query)}")
    return Example(
        id=f"{source}:{line.number}",
        query="".join(query) if all(isinstance(text, str) for text in query) else "",
        positives=texts(values, "positive"),
        negatives=texts(values, "negative"),
        instruction=known[(line.number - 1) % len(known)],
        language=options.language,
        source=source,
    )
