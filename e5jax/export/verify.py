"""An exported folder is looked at before it takes its place: its files, its numbers, and the vectors that others get from it.

Files are compared with what they must say, numbers with base and checkpoint, tensor by tensor (`contents`). Vectors are those
of transformers, PEFT and sentence-transformers, in a process of their own (`peers`), and of `Embedder`; they must be those of
the checkpoint's own model, whose adapters are beside their base and not merged into it (`reference`). What does not fit into
memory is run in parts: all layers, some at a time (`window`).
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from e5jax.errors import ConfigError
from e5jax.export.file_checks import ExportError, check_files, check_tensors
from e5jax.export.layer_subsets import BYTES, Part, parts
from e5jax.export.reference import Expected, Texts, reference
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.inference.embedder import Embedder
from e5jax.model.folder import ADAPTER

COSINE = {"float32": 0.99999, "bfloat16": 0.9995}  # least, by the dtype of the export
_ERROR = re.compile(r"[A-Za-z_][\w.]*: ")  # the line of a traceback that says what it is
LENGTH = 1e-3  # by which a vector may be longer or shorter than 1
PACKAGES = ("torch", "transformers", "sentence_transformers")


def verify(folder: Path, subject: TrainedModel, choice: Choice, most: int = BYTES) -> list[str]:
    """Says in words what was looked at. Raises ExportError for the first thing that is not as it must be."""
    try:
        return _verify(folder, subject, choice, most)
    except ConfigError as error:  # of a reader: it is the export that is wrong
        raise ExportError(str(error)) from error


def _verify(folder: Path, subject: TrainedModel, choice: Choice, most: int) -> list[str]:
    check_files(folder, subject, choice)
    said = [
        f"{check_tensors(folder, subject, choice)} tensors are the checkpoint's, number by number"
    ]
    lost = missing(choice)
    texts = Texts.of(subject)
    looked = [_look(part, subject, texts, peers=not lost) for part in parts(subject, folder, most)]
    for name in looked[0]:
        said.append(
            f"vectors of {name} are the checkpoint's (least cosine {min(each[name] for each in looked):.7f})"
        )
    if len(looked) > 1:
        said.append(
            f"vectors are of {len(looked)} parts, some layers each: the whole is larger than {most / 1e9:g} GB in float32"
        )
    if lost:
        said.append(
            f"NOT verified in transformers, PEFT and sentence-transformers: {', '.join(lost)} not installed; "
            "pip install 'e5jax[eval]' and export again"
        )
    return said


def missing(choice: Choice) -> list[str]:
    """Packages that reading the folder as others do would take, and that are not here."""
    needed = (*PACKAGES, "peft") if choice.format == "adapter" else PACKAGES
    return [name for name in needed if find_spec(name) is None]


def _look(part: Part, subject: TrainedModel, texts: Texts, *, peers: bool) -> dict[str, float]:
    """The least cosine by library."""
    expected = reference(subject, part, texts)
    found = check_answer(ask(question(part, subject, texts)), expected, subject) if peers else {}
    return found | {"Embedder": check_own(part, expected, subject, texts)}


def question(part: Part, subject: TrainedModel, texts: Texts) -> dict[str, Any]:
    """What `peers` is asked."""
    is_adapter = (part.folder / ADAPTER).is_file()
    return {
        "folder": str(part.folder.absolute()),
        "base": str(part.base.absolute()) if part.base and is_adapter else "",
        "pooling": subject.run.model.pooling,
        **texts._asdict(),
    }


def ask(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a process that has no other work, no GPU and no network. Raises ExportError when it has none."""
    with tempfile.TemporaryDirectory() as space:
        to, back = Path(space, "question.json"), Path(space, "answer.json")
        to.write_text(json.dumps(asked), encoding="utf-8")
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, "-m", "e5jax.export.reference_libraries", str(to), str(back)]
        done = subprocess.run(  # noqa: S603  our own module, no shell
            command,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode or not back.is_file():
            lines = [line for line in done.stderr.splitlines() if _ERROR.match(line)]
            why = lines[-1] if lines else f"exit code {done.returncode}"
            raise ExportError(f"transformers, PEFT or sentence-transformers cannot load it: {why}")
        return json.loads(back.read_text(encoding="utf-8"))


def check_answer(
    answer: Mapping[str, Any], expected: Expected, subject: TrainedModel
) -> dict[str, float]:
    """The least cosine by library. Raises ExportError."""
    if answer["missing"]:
        raise ExportError(
            f"transformers finds no {', '.join(answer['missing'])}, and would make it up"
        )
    check_ids(answer["ids"], expected, "transformers")
    if not answer["padded right"]:
        raise ExportError(
            "the tokenizer pads on the left; the folder's recipe is padding on the right"
        )
    wanted = ("cosine", subject.tokenizer.limit, subject.run.export.dimensions or None)
    if (found := (answer["similarity"], answer["limit"], answer["dimensions"])) != wanted:
        raise ExportError(
            f"sentence-transformers reads similarity, limit and dimensions as {found}; they are {wanted}"
        )
    return {
        name: least(np.asarray(vectors), expected, subject, name)
        for name, vectors in answer["vectors"].items()
    }


def check_own(part: Part, expected: Expected, subject: TrainedModel, texts: Texts) -> float:
    """The least cosine of what `Embedder` makes of the folder. Raises ExportError."""
    own = Embedder.from_pretrained(part.folder, dtype="float32")
    check_ids(
        own.tokenize([*texts.templated, *texts.documents_templated, texts.long], prompt=""),
        expected,
        "Embedder",
    )
    if own.settings.dimensions != (wanted := subject.run.export.dimensions or None):
        raise ExportError(
            f"Embedder keeps {own.settings.dimensions} dimensions, and must keep {wanted}"
        )
    with jax.default_matmul_precision("highest"):
        sides = (own.encode_query, texts.queries), (own.encode_document, texts.documents)
        vectors = np.concatenate([encode(part, dimensions=own.width) for encode, part in sides])
    return least(vectors, expected, subject, "Embedder")


def check_ids(ids: list[list[int]], expected: Expected, name: str) -> None:
    """Raises ExportError naming the first text that is read otherwise."""
    for number, (found, wanted) in enumerate(zip(ids, expected.ids, strict=True)):
        if found != wanted:
            raise ExportError(
                f"{name} reads text {number} as {_short(found)}, and the model was trained with {_short(wanted)}"
            )


def least(vectors: np.ndarray, expected: Expected, subject: TrainedModel, name: str) -> float:
    """The least cosine with the expected vectors. Raises ExportError when it is too small, or a vector is not of length 1."""
    if vectors.shape != expected.vectors.shape:
        raise ExportError(
            f"{name} gives vectors {list(vectors.shape)}, and they are {list(expected.vectors.shape)}"
        )
    lengths = np.linalg.norm(vectors, axis=-1)
    if not (abs(lengths - 1) < LENGTH).all():
        raise ExportError(
            f"{name} gives vectors of lengths from {lengths.min():.4g} to {lengths.max():.4g}, and they are of length 1"
        )
    cosines = np.sum(vectors * expected.vectors, axis=-1) / lengths
    enough = COSINE[subject.run.export.dtype]
    if not cosines.min() >= enough:
        raise ExportError(
            f"{name} gives other vectors than the checkpoint: text {cosines.argmin()} has cosine {cosines.min():.6f}, "
            f"and {subject.run.export.dtype} is at least {enough}"
        )
    return float(cosines.min())


def _short(ids: list[int]) -> str:
    return (
        str(ids)
        if len(ids) <= 12
        else f"[{', '.join(map(str, ids[:6]))}, … {', '.join(map(str, ids[-5:]))}] ({len(ids)} ids)"
    )
