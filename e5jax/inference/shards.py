"""Texts into shards of vectors on disk. A shard is there whole or not at all, and one that is there is not made again."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from e5jax.data.tokenizer import TextTokenizer
from e5jax.inference.vector_quantization import FILE as RANGES
from e5jax.model.folder import base_of
from e5jax.workdir.directory import atomic_output

T = TypeVar("T")
Shards = list[Float[np.ndarray, "p d"]]


class TextEmbedder(Protocol):
    """What is needed of `e5jax.Embedder`."""

    tokenizer: TextTokenizer

    def query_prompt(self, instruction: str) -> str: ...

    def encode(
        self, texts: Sequence[str], *, prompt: str | Sequence[str] | None = None
    ) -> Float[np.ndarray, "b d"]: ...


def embed(
    encode: Callable[[list[T]], np.ndarray],
    texts: Iterable[T],
    count: int,
    identity: str,
    place: Path,
    shard: int,
) -> Shards:
    """The vectors of `count` texts, read from disk as they are used: one array of `shard` rows after the other.

    `identity` says all that they depend on. It becomes part of the name of their folder, which starts with `place`: what
    another model or other texts left there is not mistaken for them.
    """
    name = place.name
    place = place.with_name(
        f"{name}-{hashlib.sha256(f'{identity} {shard}'.encode()).hexdigest()[:16]}"
    )
    files = [place / f"{number:06}.npy" for number in range(-(-count // shard))]
    with tqdm(total=count, unit="text", desc=f"encode {name.lstrip('.')}", disable=None) as bar:
        for file, some in zip(files, _blocks(texts, shard), strict=True):
            if not _there(file, len(some)):
                write_array(file, encode(some))
            bar.update(len(some))
    return [np.load(file, mmap_mode="r") for file in files]


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file whole or not at all. `np.save` does not notice that a full disk has no room for the end of a file."""
    with atomic_output(path) as temporary, temporary.open("wb") as file:
        array = np.ascontiguousarray(array)
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def _blocks(texts: Iterable[T], size: int) -> Iterator[list[T]]:
    """Some texts at a time."""
    rest = iter(texts)
    while some := list(islice(rest, size)):
        yield some


def _there(file: Path, count: int) -> bool:
    """Whether it holds the vectors of so many texts: what is damaged or something else is made again."""
    try:
        found = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return found.dtype == np.float32 and found.ndim == 2 and len(found) == count


def rows(shards: Shards, places: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n d"]:
    """The vectors at these places."""
    size = len(shards[0])
    return np.stack([shards[place // size][place % size] for place in places.tolist()])


def model_identity(folder: Path) -> str:
    """SHA-256 over every file that the vectors of a model depend on."""
    digest = hashlib.sha256()
    for part in dict.fromkeys(
        (folder, base_of(folder) or folder)
    ):  # an adapter's vectors depend on its base, too
        for file in sorted(
            {*part.glob("*.json"), *part.glob("*.safetensors"), *_of_modules(part)}
            - {part / RANGES}
        ):
            digest.update(file.relative_to(part).as_posix().encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _of_modules(folder: Path) -> Iterator[Path]:
    """Configs and weights in the subfolders of a sentence-transformers folder."""
    for name in ("config.json", "*.safetensors"):
        yield from folder.glob(f"*/{name}")
