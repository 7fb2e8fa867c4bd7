"""A page that shows what training files hold: a survey and what lies beside the files flow in, one HTML file flows out."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from e5jax.data.records import Example
from e5jax.data.tokenizer import read_tokenizer
from e5jax.datasets.cleaned import DATA, REPORT, read_report
from e5jax.datasets.convert import rejects_of
from e5jax.datasets.counts import flat
from e5jax.datasets.example_texts import Part, excerpt, printable, texts_of
from e5jax.datasets.normalise import read
from e5jax.datasets.survey import Measure, Source, Survey, survey
from e5jax.report import charts, page
from e5jax.workdir.directory import write_text, writing

EXAMPLES = 10
_ROWS = 20  # of a table; what is rarer is one line
_NAMED, _NAME, _LABEL = 3, 24, 300  # names in a cell, characters of each, and of one that has a row
_LONGEST = 20_000  # characters of a text that the page shows
_TOKENIZED = 1_000  # texts at once
_HEADINGS: dict[Part, str] = {
    "query": "Queries",
    "positive": "Positives",
    "negative": "Hard negatives",
}


def inspect(
    files: Sequence[Path],
    output: Path,
    tokenizer: Path | None = None,
    size: int = 10_000,
    seed: int = 0,
) -> None:
    """Writes the page: no script, no network, the same bytes for the same files and seed."""
    with writing("data inspect", output, inputs=files):
        if tokenizer is None:
            unit, measure = "words", in_words
        else:
            place = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
            unit, measure = "tokens", in_tokens(read_tokenizer(place))
        found = survey(files, measure, size, seed)
        chosen = np.random.default_rng(seed).choice(
            len(found.sample), min(EXAMPLES, len(found.sample)), replace=False
        )
        write_text(
            output,
            document(found, unit, [found.sample[i] for i in sorted(chosen.tolist())]),
            "data inspect",
        )


def in_words(texts: Sequence[str]) -> list[int]:
    """Lengths in words; two characters of a script without spaces are one."""
    return [round(read(text).length) for text in texts]


def in_tokens(tokenizer: Tokenizer) -> Measure:
    """Lengths in tokens, without BOS and EOS, whatever the tokenizer's own settings."""
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def measure(texts: Sequence[str]) -> list[int]:
        starts = range(0, len(texts), _TOKENIZED)
        batches = (
            tokenizer.encode_batch_fast(texts[i : i + _TOKENIZED], add_special_tokens=False)
            for i in starts
        )
        return [len(encoding) for batch in batches for encoding in batch]

    return measure


def document(of: Survey, unit: str, examples: Sequence[Example]) -> page.Html:
    """The page. `unit` is what lengths were measured in."""
    rejected = sum(counts.total() for counts in of.rejected.values())
    lead = f"{_counted(len(of.files), 'file')}, {_counted(len(of.sources), 'source')}, {_counted(rejected, 'unreadable line')}."
    if len(of.sample) < of.records:
        lead += f" Lengths, and languages that records do not name, are those of {len(of.sample):,} records taken at random."
    sections = [
        _sources(of),
        _files(of),
        _lengths(of, unit),
        _languages(of),
        _instructions(of),
        _cleaning(of),
    ]
    return page.document(
        _counted(of.records, "training record"), lead, [*sections, _examples(examples)]
    )


def _sources(of: Survey) -> page.Html:
    header = [
        "source",
        "records",
        "share",
        "positives a record",
        "negatives a record",
        "with scores",
        "languages",
        "instructions",
    ]
    ordered = sorted(of.sources.items(), key=lambda pair: -pair[1].records)
    asked = Counter(source for sources in of.instructions.values() for source in sources)
    rows = [_source(name, source, of.records, asked[name]) for name, source in ordered[:_ROWS]]
    if rest := ordered[_ROWS:]:
        rows.append(
            [
                f"{len(rest):,} others",
                *_share(sum(source.records for _, source in rest), of.records),
                *[""] * 5,
            ]
        )
    return page.section("Sources", page.table(header, rows))


def _source(name: str, source: Source, records: int, instructions: int) -> list[str]:
    means = (source.positives / source.records, source.negatives / source.records)
    scored = _share(source.scored, source.records)[1]
    return [
        _label(name),
        *_share(source.records, records),
        *(f"{mean:.2f}" for mean in means),
        scored,
        _names(source.languages),
        f"{instructions:,}",
    ]


def _files(of: Survey) -> page.Html:
    rows = []
    for name, records in of.files.items():
        bad = of.rejected[name].total()
        before = _lines(rejects_of(Path(name)))
        rows.append(
            [
                _label(name),
                f"{records:,}",
                *_share(bad, records + bad),
                "–" if before is None else f"{before:,}",
            ]
        )
    reasons = Counter[str]()
    for counts in of.rejected.values():
        reasons.update(counts)
    header = ["file", "records", "unreadable lines", "share", "left out when it was made"]
    parts = [page.table(header, rows)]
    if reasons:
        parts.append(
            page.table(
                ["why lines cannot be read", "lines", "share"], _counts(reasons, reasons.total())
            )
        )
        parts += [
            page.paragraph("Each of them with its line:"),
            page.code("e5jax data validate --input=FILE"),
        ]
    return page.section("Files", *parts)


def _lengths(of: Survey, unit: str) -> page.Html:
    header = ["", "texts", "mean", "5\u00a0%", "median", "95\u00a0%", "99\u00a0%", "longest"]
    rows = [
        [_HEADINGS[part], *_quantiles(lengths)] for part, lengths in of.lengths.items() if lengths
    ]
    if not rows:
        return page.section(f"Lengths in {unit}", page.paragraph("No texts."))
    drawn = [
        (_HEADINGS[part], charts.histogram(lengths, unit))
        for part, lengths in of.lengths.items()
        if lengths
    ]
    return page.section(f"Lengths in {unit}", page.table(header, rows), page.figures(drawn))


def _quantiles(lengths: Sequence[int]) -> list[str]:
    cuts = np.quantile(lengths, [0.05, 0.5, 0.95, 0.99, 1.0], method="higher").tolist()
    return [f"{len(lengths):,}", f"{np.mean(lengths):,.1f}", *(f"{cut:,}" for cut in cuts)]


def _languages(of: Survey) -> page.Html:
    named = Counter[str]()
    for source in of.sources.values():
        named.update(source.languages)
    parts = [
        page.table(["language that records name", "records", "share"], _counts(named, of.records))
    ]
    if of.languages:
        header = ["found in the texts where none is named", "records looked at", "share"]
        parts.append(page.table(header, _counts(of.languages, of.languages.total())))
    return page.section("Languages", *parts)


def _instructions(of: Survey) -> page.Html:
    ordered = sorted(of.instructions.items(), key=lambda pair: -pair[1].total())
    rows = [
        [_label(text) or "none", *_share(sources.total(), of.records), _names(sources)]
        for text, sources in ordered[:_ROWS]
    ]
    if rest := ordered[_ROWS:]:
        rows.append(
            [
                f"{len(rest):,} others",
                *_share(sum(sources.total() for _, sources in rest), of.records),
                "",
            ]
        )
    return page.section(
        "Instructions", page.table(["instruction", "records", "share", "sources"], rows)
    )


def _names(counts: Counter[str]) -> str:
    """The most frequent, cut short."""
    names = ", ".join(_label(name)[:_NAME] for name, _ in counts.most_common(_NAMED))
    return f"{names} and {len(counts) - _NAMED:,} more" if len(counts) > _NAMED else names


def _cleaning(of: Survey) -> page.Html:
    """What the survey found, and what `e5jax data clean` says of the files that it wrote."""
    parts = [page.paragraph(_duplicates(of))]
    for folder in dict.fromkeys(Path(name).absolute().parent for name in of.files):
        path = folder.parent / REPORT
        if folder.name == DATA and path.is_file():
            report = read_report(path)
            parts.append(
                page.paragraph(
                    f"{_label(str(path))}: {_counted(report['kept'], 'record')} of {report['examples']:,} kept."
                )
            )
            removed = Counter(
                {
                    f"{cause}, {reason}: {part}": n
                    for (cause, reason, part), n in flat(report["removed"]).items()
                }
            )
            parts.append(
                page.table(
                    ["removed before, and the part that matched", "records", "share"],
                    _counts(removed, report["examples"]),
                )
            )
    return page.section("Copies and evaluation texts", *parts)


def _duplicates(of: Survey) -> str:
    if of.duplicates is None:
        return f"Not looked for among more than {len(of.sample):,} records; “e5jax data clean” finds copies and removes them."
    count, share = _share(of.duplicates.total(), of.records)
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in of.duplicates.most_common())
    return f"Records that repeat an earlier one: {count} of {of.records:,}, {share}{f' ({reasons})' * bool(reasons)}."


def _examples(examples: Sequence[Example]) -> page.Html:
    shown = [_example(example) for example in examples]
    note = page.paragraph("Taken at random." if shown else "No records.")
    return page.section("Examples", note, *shown)


def _example(example: Example) -> page.Html:
    notes = [
        example.id,
        example.source,
        example.language,
        f"Instruct: {example.instruction}" if example.instruction else "",
    ]
    scores = {"positive": iter(example.positive_scores), "negative": iter(example.negative_scores)}
    answers = []
    for number, (part, text) in enumerate(texts_of(example)[1:], 1):
        score = next(scores[part], None)
        note = (
            f"{len(text):,} characters"
            if score is None
            else f"{len(text):,} characters, score {score:g}"
        )
        answers.append(
            page.answer(
                number,
                _label(excerpt(text)),
                note,
                _text(text),
                "positive" if part == "positive" else "",
            )
        )
    return page.quote(
        _text(example.query), " · ".join(_label(note) for note in notes if note), *answers
    )


def _text(text: str) -> str:
    """As it is, lines kept, controls made visible, cut where it would make the page too heavy."""
    cut = (
        f"{text[:_LONGEST]}\n… {len(text) - _LONGEST:,} characters more"
        if len(text) > _LONGEST
        else text
    )
    return printable(cut, kept="\n\t")


def _label(text: str) -> str:
    """On one line."""
    return printable(text[:_LABEL])


def _share(count: int, of: int) -> list[str]:
    """The count and its share, which is 0 for none only."""
    share = count / of if of else math.nan
    return [f"{count:,}", "–" if not of else "<0.1%" if 0 < share < 0.001 else f"{share:.1%}"]


def _counts(counts: Counter[str], of: int) -> list[list[str]]:
    """Rows of the most frequent, and one of all others."""
    rows = [[_label(name), *_share(count, of)] for name, count in counts.most_common(_ROWS)]
    if rest := counts.most_common()[_ROWS:]:
        rows.append([f"{len(rest):,} others", *_share(sum(count for _, count in rest), of)])
    return rows


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _lines(path: Path) -> int | None:
    """Of a file that may not be there."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for _ in file)
