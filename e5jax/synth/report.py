"""`report.html` of a generator run: what was asked for, what came of it, and some of it to read."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from e5jax.report import page
from e5jax.synth.details import Entry
from e5jax.synth.languages import table

FIRST = 20  # languages that are not folded away


def report(found: Mapping[str, Any], samples: Sequence[Entry]) -> str:
    """The page: no script, no network, the same bytes for the same run."""
    counted = found["examples"]
    title = f"{counted['kept']:,} synthetic examples"
    lead = f"{counted['asked']:,} asked for, {counted['dropped']:,} dropped."
    if counted["open"]:
        lead += f" {counted['open']:,} are missing: {found['halted'] or 'too few tasks'}."
    sections = [
        _families(found),
        _languages(found),
        _models(found),
        _lengths(found),
        _rejections(found),
        _requests(found),
    ]
    return page.document(
        title, lead, [*(section for section in sections if section), _samples(samples)]
    )


def _families(found: Mapping[str, Any]) -> page.Html | None:
    kept = {name: family["kept"] for name, family in found["families"].items()}
    rows = [
        [
            name,
            *(f"{family[column]:,}" for column in ("asked", "kept", "dropped", "open")),
            f"{family['tasks']:,}" if family["tasks"] else "–",
        ]
        for name, family in found["families"].items()
    ]
    table = page.table(["family", "asked", "kept", "dropped", "open", "tasks"], rows)
    return page.section("Families", *([_shares(kept)] if any(kept.values()) else []), table)


def _languages(found: Mapping[str, Any]) -> page.Html | None:
    counts = {_language(code): count for code, count in found["languages"].items()}
    if not counts:
        return None
    first, rest = dict(list(counts.items())[:FIRST]), dict(list(counts.items())[FIRST:])
    note = (
        f"{len(counts)} languages. An identifier confirmed {found['language_identified']:,} examples and could not tell "
        f"for {found['language_unchecked']:,}. A pair of languages counts for both."
    )
    parts = [page.paragraph(note), _shares(first, sum(counts.values()))]
    if rest:
        parts.append(page.folded(f"{len(rest)} more", _shares(rest, sum(counts.values()))))
    return page.section("Languages", *parts)


def _language(code: str) -> str:
    return f"{table()[code].name} ({code})" if code in table() else code


def _models(found: Mapping[str, Any]) -> page.Html | None:
    return page.section("Models", _shares(found["models"])) if found["models"] else None


def _lengths(found: Mapping[str, Any]) -> page.Html | None:
    if not found["words"]:
        return None
    parts = [
        page.paragraph(
            "Words, on a logarithmic scale: a bar from the 5th to the 95th percentile, a mark at the median."
        )
    ]
    for part in ("query", "positive", "negative"):
        quantiles = {
            name: found["words"][name][part]
            for name in found["families"]
            if part in found["words"].get(name, ())
        }
        if not quantiles:
            continue
        longest = max(values[-1] for values in quantiles.values())
        bars = [_range(name, values, longest) for name, values in quantiles.items()]
        parts += [page.paragraph(f"{part.capitalize()}:"), page.bars(bars)]
    return page.section("Lengths", *parts)


def _range(name: str, values: Sequence[float], longest: float) -> page.Bar:
    low, _, middle, _, high = values
    start, mark, end = (math.log1p(value) / math.log1p(longest) for value in (low, middle, high))
    return page.Bar(name, end - start, f"{low:,.0f} – {middle:,.0f} – {high:,.0f}", start, mark)


def _rejections(found: Mapping[str, Any]) -> page.Html | None:
    reasons = sum((Counter(part) for part in found["rejected"].values()), Counter[str]())
    if not reasons:
        return None
    text = "Replies and tasks that were not taken, by reason; most are asked for again (docs/synth.md)."
    rows = [
        [kind, reason, f"{count:,}"]
        for kind, part in found["rejected"].items()
        for reason, count in sorted(part.items())
    ]
    parts = [page.paragraph(text), _shares(dict(reasons.most_common()))]
    if found["dropped_for"]:
        final = [[reason, f"{count:,}"] for reason, count in found["dropped_for"].items()]
        parts.append(page.table(["dropped for good", "examples"], final))
    return page.section(
        "Rejections",
        *parts,
        page.folded("by family", page.table(["family", "reason", "replies"], rows)),
    )


def _requests(found: Mapping[str, Any]) -> page.Html | None:
    rows = [
        [" · ".join(path).replace("_", " "), _shown(value)]
        for path, value in _leaves(found["requests"])
    ]
    return (
        page.section("Requests and cost", _cost(found), page.table(["", "all runs"], rows))
        if rows
        else None
    )


def _cost(found: Mapping[str, Any]) -> page.Html:
    requests, kept = found["requests"], found["examples"]["kept"]
    tokens, money = requests["prompt_tokens"] + requests["completion_tokens"], requests["money"]
    text = f"{requests['requests']:,} requests and {tokens:,} tokens" + (
        "" if money is None else f" at a cost of {money:,.2f}"
    )
    if kept:
        text += (
            f": {tokens / kept:,.0f} tokens"
            + ("" if money is None else f" and {money / kept:,.5f}")
            + " for each example kept"
        )
    return page.paragraph(f"{text}.")


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict):
        return [leaf for name, value in tree.items() for leaf in _leaves(value, (*path, str(name)))]
    return [(path, tree)]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}".rstrip("0").rstrip(".")
    return (
        f"{value:,}"
        if isinstance(value, int) and not isinstance(value, bool)
        else "–"
        if value is None
        else str(value)
    )


def _shares(counts: Mapping[str, int], total: int | None = None) -> page.Html:
    whole = total or sum(counts.values()) or 1
    longest = max(counts.values(), default=0) or 1
    return page.bars(
        page.Bar(name, count / longest, f"{count:,} · {100 * count / whole:.1f} %")
        for name, count in counts.items()
    )


def _samples(samples: Sequence[Entry]) -> page.Html:
    if not samples:
        return page.section("Samples", page.paragraph("There is nothing to show yet."))
    return page.section(
        "Samples", page.paragraph("Chosen by a hash of their ids."), *map(_sample, samples)
    )


def _sample(entry: Entry) -> page.Html:
    details, example = entry
    languages = " → ".join(_language(code) for code in (details.language, details.target) if code)
    asked = ", ".join(
        f"{name.replace('_', ' ')}: {value}" for name, value in details.choices.items()
    )
    texts = [
        ("instruction", example.instruction),
        ("query", example.query),
        ("positive", example.positives[0]),
    ]
    texts += [("negative", text) for text in example.negatives]
    return page.folded(
        f"{details.id} · {languages} · {details.model}",
        page.fields([*texts, ("asked for", asked or "–")]),
    )
