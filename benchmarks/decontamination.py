"""Planted copies found and innocent texts removed, on 50,000 real texts.

.venv/bin/python benchmarks/decontamination.py [--data=runs/quickstart/data] [--texts=50000] [--planted=1000] [--output=FILE]

Texts are the quickstart's training pairs (docstrings and functions of installed packages), filled up with paragraphs of the
packages' descriptions. `duplicates` plants copies of these texts among them; `contamination` plants copies of the quickstart's
held-out queries and documents, which are of other packages. Copies are equal (half of them in other case and spacing), near (one
word in ten replaced by another of the corpus, texts of 10 words or more) or inside (within a longer text, contamination only).
`false` are removals of texts that were not planted and that share less than 80 % of their words, in order, with what they were
removed for: difflib's ratio over words, which knows nothing of shingles. `pairs` is what `without_duplicates` does to whole
examples. CPU seconds are given beside wall seconds, which other work on the machine stretches.
"""

import argparse
import difflib
import importlib.metadata
import json
import random
import re
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from e5jax.data.records import Example
from e5jax.data.source import ExampleSource
from e5jax.datasets.contamination import Evaluation, beir_texts
from e5jax.datasets.duplicates import Earlier, without_duplicates
from e5jax.datasets.example_texts import Removed, texts_of
from e5jax.datasets.minhash import NearIndex, sketch
from e5jax.datasets.normalise import read

ALIKE = 0.8
LONG = 10  # words


class Text(NamedTuple):
    """A text of the stream."""

    text: str
    planted: str = ""  # equal, near, inside, or nothing
    original: str = ""


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, default=Path("runs/quickstart/data"))
    options.add_argument("--texts", type=int, default=50_000)
    options.add_argument("--planted", type=int, default=1_000, help="copies of each kind")
    options.add_argument("--output", type=Path)
    args = options.parse_args()
    texts = list(islice(real_texts(args.data), args.texts))
    evaluation = list(beir_texts(args.data / "heldout"))
    print(
        f"{len(texts)} texts, {sum(read(text).length < LONG for text in texts)} of fewer than {LONG} words"
    )
    found = {
        "texts": len(texts),
        "evaluation_texts": len(evaluation),
        "duplicates": duplicates(texts, args.planted),
        "contamination": contamination(texts, evaluation, args.planted),
        "pairs": pairs(args.data, args.planted),
    }
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def real_texts(data: Path) -> Iterator[str]:
    """Queries and positives of the training pairs, then paragraphs of package descriptions."""
    source = ExampleSource([data / "train.jsonl"])
    for i in range(len(source)):
        yield from (text for part, text in texts_of(source[i]) if part != "negative")
    for package in sorted(
        importlib.metadata.distributions(), key=lambda package: str(package.name)
    ):
        for paragraph in re.split(r"\n\s*\n", package.metadata.get_payload() or ""):
            if len(paragraph.split()) >= LONG:
                yield paragraph


def duplicates(texts: list[str], planted: int) -> dict:
    """Copies of texts of the stream, anywhere behind them."""
    chooser = random.Random(0)
    copies = [
        (chooser.randint(i + 1, len(texts)), copy) for i, copy in plant(texts, planted, chooser)
    ]
    stream = weave(texts, copies)
    kept: list[str] = []

    def remove(text: str) -> tuple[str, str] | None:
        found = sketch(read(text))
        if match := index.find(found):
            return "equal" if match.equal else "near", kept[match.number]
        index.add(found)
        kept.append(text)
        return None

    with NearIndex() as index:
        return measure("duplicates", stream, remove, len(texts))


def pairs(data: Path, planted: int) -> dict:
    """What `without_duplicates` does to the training pairs, with copies of pairs behind them whose texts both are changed."""
    source = ExampleSource([data / "train.jsonl"])
    examples = [source[i] for i in range(len(source))]
    chooser = random.Random(3)
    long = [one for one in examples if read(one.query).length >= LONG]
    vocabulary = sorted(
        {
            word
            for one in chooser.sample(examples, 1_000)
            for word in read(texts_of(one)[1][1]).words
        }
    )
    equal = [
        one._replace(id=f"equal {one.id}", query=one.query.upper())
        for one in chooser.sample(examples, planted)
    ]
    near = [changed(one, vocabulary, chooser) for one in chooser.sample(long, planted)]
    removed: list[Removed] = []
    start = time.process_time()
    with Earlier() as earlier:
        kept = {
            one.id
            for one in without_duplicates([*examples, *equal, *near], earlier, removed.append)
        }
    row = {
        "pairs": len(examples),
        "found": {
            kind: sum(one.id not in kept for one in copies) / planted
            for kind, copies in (("equal", equal), ("near", near))
        },
        "removed_share": sum(one.id not in kept for one in examples) / len(examples),
        "cpu_seconds": time.process_time() - start,
    }
    print(f"pairs: {row}")
    return row


def contamination(texts: list[str], evaluation: list[tuple[str, str]], planted: int) -> dict:
    """Copies of evaluation texts, anywhere in the stream."""
    chooser = random.Random(1)
    wanted = dict(evaluation)
    inside = chooser.sample(
        [text for text in wanted.values() if read(text).length >= LONG], planted
    )
    copies = [copy for _, copy in plant(list(wanted.values()), planted, chooser)]
    copies += [
        Text(f"{chooser.choice(texts)}\n{text}\n{chooser.choice(texts)}", "inside", text)
        for text in inside
    ]
    stream = weave(texts, [(chooser.randint(0, len(texts)), copy) for copy in copies])
    start = time.process_time(), time.perf_counter()
    with Evaluation(evaluation) as index:
        build = time.process_time() - start[0], time.perf_counter() - start[1]

        def remove(text: str) -> tuple[str, str] | None:
            hit = index.find(text)
            return (hit.reason, wanted[hit.id]) if hit else None

        found = measure("contamination", stream, remove, len(texts))
    return found | {"build_cpu_seconds": build[0], "build_seconds": build[1]}


def plant(texts: list[str], count: int, chooser: random.Random) -> Iterator[tuple[int, Text]]:
    """Equal and near copies, each with the number of its original."""
    vocabulary = sorted(
        {
            word
            for text in chooser.sample(texts, min(len(texts), 3_000))
            for word in read(text).words
        }
    )
    for number, i in enumerate(chooser.sample(range(len(texts)), count)):
        yield (
            i,
            Text(
                "  ".join(texts[i].upper().split(" ")) if number % 2 else texts[i],
                "equal",
                texts[i],
            ),
        )
    for i in chooser.sample(
        [i for i, text in enumerate(texts) if len(re.findall(r"\w+", text)) >= LONG], count
    ):
        yield i, Text(change(texts[i], vocabulary, chooser), "near", texts[i])


def change(text: str, vocabulary: list[str], chooser: random.Random) -> str:
    """One word in ten, at least one, replaced by another word."""
    spans = [match.span() for match in re.finditer(r"\w+", text)]
    for start, end in sorted(chooser.sample(spans, max(1, round(len(spans) / 10))), reverse=True):
        other = next(
            word
            for word in iter(lambda: chooser.choice(vocabulary), None)
            if word != text[start:end].casefold()
        )
        text = text[:start] + other + text[end:]
    return text


def changed(example: Example, vocabulary: list[str], chooser: random.Random) -> Example:
    """`change` of the query and of every positive."""
    values = {
        name: value
        for name, value in example._asdict().items()
        if name in ("query", "positive", "positives")
    }
    for name, value in values.items():
        new = [
            change(text, vocabulary, chooser)
            for text in ([value] if isinstance(value, str) else value)
        ]
        values[name] = new[0] if isinstance(value, str) else tuple(new)
    return example._replace(id=f"near {example.id}", **values)


def weave(texts: list[str], copies: list[tuple[int, Text]]) -> list[Text]:
    """Copies before the text of their number."""
    places = [(i, 1, Text(text)) for i, text in enumerate(texts)] + [
        (i, 0, copy) for i, copy in copies
    ]
    return [text for _, _, text in sorted(places, key=lambda place: place[:2])]


def measure(
    name: str,
    stream: Iterable[Text],
    remove: Callable[[str], tuple[str, str] | None],
    innocent: int,
) -> dict:
    """Streams the texts through `remove`, which says reason and match, and prints what became of them."""
    memory = resident()
    start = time.process_time(), time.perf_counter()
    seen = [(text, remove(text.text)) for text in stream]
    spent = time.process_time() - start[0], time.perf_counter() - start[1]
    planted = Counter(text.planted for text, _ in seen if text.planted)
    found = Counter(text.planted for text, match in seen if text.planted and match)
    removed = [(text.text, *match) for text, match in seen if match and not text.planted]
    lost = {text for text, _, _ in removed}
    of_kept = [
        match is not None
        for text, match in seen
        if text.planted == "near" and text.original not in lost
    ]
    ratios = [likeness(text, other) for text, reason, other in removed if reason != "equal"]
    row = {
        "planted": dict(planted),
        "found": {kind: found[kind] / planted[kind] for kind in planted},
        "found_near_of_kept": float(np.mean(of_kept)),
        "removed": dict(Counter(reason for _, reason, _ in removed)),
        "removed_share": len(removed) / innocent,
        "false_share": sum(ratio < ALIKE for ratio in ratios) / innocent,
        "likeness_quantiles_5_50": np.quantile(ratios, [0.05, 0.5]).tolist() if ratios else [],
        "cpu_seconds": spent[0],
        "seconds": spent[1],
        "memory_bytes": resident() - memory,
    }
    shares = ", ".join(f"{kind} {share:.1%}" for kind, share in row["found"].items())
    print(
        f"{name}: found {shares} (near copies of texts that stay: {row['found_near_of_kept']:.1%}); not planted but removed ",
        end="",
    )
    print(
        f"{row['removed_share']:.2%} {row['removed']}, false {row['false_share']:.2%}; {spent[0]:.1f} s of CPU, {spent[1]:.1f} s"
    )
    return row


def likeness(one: str, other: str) -> float:
    """Share of words that both texts have in the same order; of the shorter one's words if it is inside the other."""
    small, large = sorted((read(one).words, read(other).words), key=len)
    blocks = difflib.SequenceMatcher(None, small, large, autojunk=False).get_matching_blocks()
    shared = sum(block.size for block in blocks)
    inside = len(small) < len(large) / 2
    return shared / len(small) if inside else 2 * shared / (len(small) + len(large))


def resident() -> int:
    """Most bytes that this process held so far."""
    return 1_024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
