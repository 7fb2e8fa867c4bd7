"""Writes small folders in BEIR layout."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_beir(
    folder: Path,
    documents: Mapping[str, str],
    queries: Mapping[str, str],
    judgements: Iterable[str],
    **task: object,
) -> Path:
    """`judgements` are lines `query document grade`; with `task`, `task.json` is written too."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, texts in (("corpus", documents), ("queries", queries)):
        lines = [json.dumps({"_id": id_, "text": text}) + "\n" for id_, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    write_judgements(folder, judgements)
    if task:
        (folder / "task.json").write_text(json.dumps(task))
    return folder


def write_judgements(folder: Path, judgements: Iterable[str]) -> None:
    """Writes `qrels/test.tsv`."""
    lines = ["query-id corpus-id score", *judgements]
    text = "".join("\t".join(line.split()) + "\n" for line in lines)
    (folder / "qrels" / "test.tsv").write_text(text)
