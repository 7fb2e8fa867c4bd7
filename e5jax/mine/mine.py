"""`e5jax mine`: hard negatives for records, from a corpus, with a model. A killed run goes on where its vectors end."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.inference.search import PASS, top_k
from e5jax.inference.shards import Shards, TextEmbedder, embed, model_identity, rows
from e5jax.mesh import open_cpu
from e5jax.mine.corpus import Corpus, digest_of, key, write_corpus
from e5jax.mine.examples import Asked, Examples
from e5jax.mine.report import Tally, table
from e5jax.mine.rules import Scored, choose
from e5jax.mine.settings import Mining
from e5jax.mine.teacher import Teacher
from e5jax.model.folder import locate
from e5jax.workdir.directory import atomic_output, write_text, writing

RECORDS, REPORT, CORPUS = "mined.jsonl", "report.json", "corpus.jsonl"


def main(model: str, source: Path, corpus: Path | None, output: Path, rules: Mining) -> int:
    """Mines with a folder's or hub id's model and prints what came of it. Without a corpus, the records' own passages are it."""
    for option, file in (("input", source), ("corpus", corpus), ("scores", rules.scores)):
        if file is not None and not Path(file).is_file():  # said before a model is read
            raise ConfigError(f"--{option}={file}: there is no such file")
    names = (RECORDS, REPORT) if corpus else (RECORDS, REPORT, CORPUS)
    inputs = (
        source,
        Path(model),
        *([corpus] if corpus else []),
        *([Path(rules.scores)] if rules.scores else []),
    )
    with writing("mine", *(output / name for name in names), inputs=inputs):
        open_cpu([])
        folder = locate(model)
        report = mine(
            Embedder.from_pretrained(folder).for_dot_products(),
            model_identity(folder),
            source,
            corpus,
            output,
            rules,
        )
    print(table(report))
    short = f"{report['short']['examples']:,} with too few negatives: {report['short']['action']}"
    print(
        f"mine: {report['written']:,} of {report['examples']:,} records in {output / RECORDS}; {short}"
    )
    return 0


def mine(
    embedder: TextEmbedder,
    identity: str,
    source: Path,
    corpus: Path | None,
    output: Path,
    rules: Mining,
) -> dict:
    """Writes `mined.jsonl` and `report.json` below `output`, and `vectors/`; returns the report."""
    examples = Examples(source)
    teacher = _teacher(rules, examples)
    if corpus is None:
        corpus = output / CORPUS
        write_corpus(
            corpus, (text for asked in examples for text in (*asked.positives, *asked.negatives))
        )
    texts = Corpus(corpus)
    given = _embed(embedder, identity, examples, texts, output / "vectors", rules)
    tally = Tally(teacher)
    with (
        atomic_output(output / RECORDS, "mine") as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        _search(given, examples, texts, teacher, rules, tally, file)
    report = tally.report(rules, {"corpus": len(texts), "corpus_duplicates": texts.duplicates})
    write_text(output / REPORT, json.dumps(report, indent=2) + "\n", "mine")
    return report


class Given(NamedTuple):
    """All vectors, and where a text that is no text of the corpus has its own."""

    corpus: Shards
    queries: Shards
    positives: Shards
    extra: dict[str, int]


def _embed(
    embedder: TextEmbedder,
    identity: str,
    examples: Examples,
    texts: Corpus,
    folder: Path,
    rules: Mining,
) -> Given:
    missing = (text for asked in examples for text in asked.positives if texts.place(text) is None)
    extra = {text: place for place, text in enumerate(dict.fromkeys(missing))}
    document = embedder.tokenizer.templates.document
    prompts = [
        embedder.query_prompt(asked.instruction if rules.instruction is None else rules.instruction)
        for asked in examples
    ]
    queries = [(prompt, asked.query) for prompt, asked in zip(prompts, examples, strict=True)]

    def documents(some: Sequence[str]) -> Float[np.ndarray, "b d"]:
        return embedder.encode(some, prompt=document)

    def asked(some: Sequence[tuple[str, str]]) -> Float[np.ndarray, "b d"]:
        return embedder.encode([query for _, query in some], prompt=[prompt for prompt, _ in some])

    def vectors(
        name: str, encode: Callable[..., np.ndarray], of: Corpus | Sequence, fingerprint: str
    ) -> Shards:
        return embed(encode, of, len(of), f"{identity} {fingerprint}", folder / name, rules.shard)

    return Given(
        vectors("corpus", documents, texts, texts.fingerprint),
        vectors(
            "queries", asked, queries, digest_of([prompt + query for prompt, query in queries])
        ),
        vectors("positives", documents, list(extra), digest_of(list(extra))),
        extra,
    )


def _teacher(rules: Mining, examples: Examples) -> Teacher | None:
    if rules.scores is None:
        return None
    teacher = Teacher(Path(rules.scores))
    if not any(teacher.of(asked.id) for asked in examples):
        raise ConfigError(
            f"--scores={rules.scores}: no id in it is the id of a record, such as {examples.asked(0).id!r}"
        )
    return teacher


def _search(
    given: Given,
    examples: Examples,
    texts: Corpus,
    teacher: Teacher | None,
    rules: Mining,
    tally: Tally,
    file: TextIO,
) -> None:
    """Ranks, chooses and writes, some examples at a time."""
    never = list(_never(examples, texts))
    depth = min(rules.last + max(map(len, never)), len(texts))
    starts = range(0, len(examples), PASS)
    with tqdm(total=len(texts) * len(starts), unit="text", desc="search", disable=None) as bar:
        for start in starts:
            numbers = np.arange(start, min(start + PASS, len(examples)))
            queries = rows(given.queries, numbers)
            found = zip(*top_k(queries, given.corpus, depth, progress=bar.update), strict=True)
            for number, query, (scores, places) in zip(
                numbers.tolist(), queries, found, strict=True
            ):
                asked = examples.asked(number)
                ranking = Scored(scores, _vectors(given, texts, asked) @ query)
                taught = teacher and _taught(teacher, asked, texts, places)
                choice = choose(ranking, places, never[number], rules, number, taught)
                tally.add(choice, ranking, taught)
                if len(choice.chosen) == rules.negatives or rules.short == "keep":
                    negatives, best = (
                        [texts[place] for place in places[choice.chosen].tolist()],
                        taught or ranking,
                    )
                    file.write(
                        examples.mined(
                            number, negatives, best.positives, best.candidates[choice.chosen]
                        )
                        + "\n"
                    )


def _taught(teacher: Teacher, asked: Asked, texts: Corpus, places: Int[np.ndarray, " k"]) -> Scored:
    """The ranking as the teacher scores it."""
    said = teacher.of(asked.id)

    def scores(keys: list[int]) -> Float[np.ndarray, " n"]:
        return np.array([said.get(text, np.nan) for text in keys])

    return Scored(
        np.where(places < 0, np.nan, scores(texts.keys[places].tolist())),
        scores([key(text) for text in asked.positives]),
    )


def _never(examples: Examples, texts: Corpus) -> Iterator[frozenset[int]]:
    """For each example what is no negative: positives of any record with its query, the query itself, the text with its id."""
    of_query: defaultdict[str, set[int | None]] = defaultdict(set)
    for asked in examples:
        of_query[asked.query].update(map(texts.place, asked.positives))
    for asked in examples:
        places = {*of_query[asked.query], texts.place(asked.query), texts.place_of_id(asked.id)}
        yield frozenset(place for place in places if place is not None)


def _vectors(given: Given, texts: Corpus, asked: Asked) -> Float[np.ndarray, "p d"]:
    """Of its positives."""

    def one(text: str) -> Float[np.ndarray, "1 d"]:
        place = texts.place(text)
        shards, at = (
            (given.positives, given.extra[text]) if place is None else (given.corpus, place)
        )
        return rows(shards, np.array([at]))

    return np.concatenate([one(text) for text in asked.positives])
