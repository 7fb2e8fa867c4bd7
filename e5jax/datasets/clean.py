"""Training files without copies and without what models are evaluated on: our JSONL flows in and out.

Beside the cleaned files stands what was removed and why, and how much of each. Memory holds what `Earlier` and `Evaluation`
hold, no examples.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from e5jax.data.compressed import bare_name
from e5jax.data.files import JSONL, Rejected
from e5jax.data.records import Example
from e5jax.datasets.cleaned import DATA, REMOVED, REPORT
from e5jax.datasets.contamination import SHARE, Evaluation, task_of, without_contamination
from e5jax.datasets.convert import rejects_of
from e5jax.datasets.counts import Tally, flat
from e5jax.datasets.duplicates import Earlier, without_duplicates
from e5jax.datasets.example_texts import PARTS, Removed, printable
from e5jax.datasets.language import with_language
from e5jax.datasets.minhash import THRESHOLD
from e5jax.datasets.readers import native
from e5jax.datasets.readers.result import OPTIONS
from e5jax.errors import ConfigError
from e5jax.workdir.directory import atomic_output, writing


@dataclass(frozen=True)
class Rules:
    """What counts as the same text, and where it may not be."""

    threshold: float = THRESHOLD  # Jaccard similarity of near copies
    share: float = SHARE  # of n-grams, of an evaluation text in another or the other way round
    parts: tuple[str, ...] = PARTS  # of an example, that evaluation texts are looked for in
    keep_duplicates: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError naming option, value and fix."""
        for name in ("threshold", "share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"--{name}={getattr(self, name)}: must be above 0 and at most 1")
        if not self.parts or set(self.parts) - set(PARTS):
            raise ConfigError(f"--parts={','.join(self.parts)}: must be some of {', '.join(PARTS)}")


RULES = Rules()


def clean(
    files: Sequence[Path],
    output: Path,
    evaluation: Iterable[tuple[str, str]] = (),
    rules: Rules = RULES,
) -> dict[str, Any]:
    """Writes `data/`, `removed.jsonl` and `clean.json` below `output`, all or nothing; returns the content of the last.

    Of copies the first stays, in the order of the files. What an evaluation text removes stands for no other example. Language,
    source and id are filled in where they are empty.
    """
    names = _names(files)
    tally, found = Tally(), Counter[str]()
    with (
        writing("data clean", output, folder=True, inputs=files),
        Evaluation(evaluation, rules.threshold, rules.share) as tested,
        Earlier(rules.threshold) as earlier,
        atomic_output(output, "data clean") as folder,
    ):
        (folder / DATA).mkdir(parents=True)
        with (folder / REMOVED).open("w", encoding="utf-8", newline="\n") as removed:

            def report(one: Removed) -> None:
                tally.removed(one)
                if one.cause == "contamination":
                    found[task_of(one.matched_id)] += 1
                removed.write(json.dumps(one._asdict(), ensure_ascii=False) + "\n")

            for path, name in zip(files, names, strict=True):
                examples = _read(path, rejects_of(folder / DATA / name), tally)
                if len(tested):
                    examples = without_contamination(examples, tested, report, rules.parts)
                if not rules.keep_duplicates:
                    examples = without_duplicates(examples, earlier, report)
                _write(folder / DATA / name, with_language(examples), tally)
        if not tally.examples:
            raise ConfigError(
                f"--input={files[0]}: not one record, neither in this file nor in another; {tally.rejections:,} bad lines"
            )
        places = tested.places
        by_task = {
            task: {
                "texts": count,
                "removed": found[task],
                **({"places": places[task]} if task in places else {}),
            }
            for task, count in tested.tasks.items()
            if task
        }
        made = {
            **tally.report(),
            "evaluation_texts": len(tested),
            "evaluation": by_task,
            "rules": asdict(rules),
        }
        (folder / REPORT).write_text(
            json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return made


def _names(files: Sequence[Path]) -> list[str]:
    """Of the cleaned files: those of the files, uncompressed. Raises ConfigError for one twice."""
    names: dict[str, Path] = {}
    for path in files:
        bare = Path(bare_name(path))
        name = f"{bare.stem if bare.suffix.lower() in (*JSONL, '.json') else bare}.jsonl"
        if other := names.get(name):
            raise ConfigError(
                f"--input={path}: has the name of {other}, and both become {DATA}/{name}; rename one"
            )
        names[name] = path
    return list(names)


def _read(path: Path, rejects: Path, tally: Tally) -> Iterator[Example]:
    with rejects.open("w", encoding="utf-8", newline="\n") as bad:
        for outcome in tqdm(
            native.read(path, OPTIONS), desc=path.name, unit=" lines", disable=None
        ):
            if isinstance(outcome, Rejected):
                bad.write(printable(str(outcome)) + "\n")
                tally.rejected(outcome)
            else:
                tally.read(outcome)
                yield outcome


def _write(path: Path, examples: Iterable[Example], tally: Tally) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            file.write(example.to_json() + "\n")
            tally.kept(example)


def summary(made: Mapping[str, Any]) -> str:
    """What `clean` returns, in a few lines."""
    rejected = sum(made["rejected"].values())
    reasons: Counter[str] = Counter()
    for (cause, reason, _), count in flat(made["removed"]).items():
        reasons[f"{cause}, {reason}"] += count
    head = f"{made['examples']:,} examples: {made['kept']:,} kept; {rejected:,} lines rejected"
    return "\n".join([head, *(f"{count:>12,}  {why}" for why, count in reasons.most_common())])
