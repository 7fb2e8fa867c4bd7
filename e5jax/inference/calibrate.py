"""`e5jax calibrate`: what texts say of the ranges of int8, kept in the model's folder."""

from pathlib import Path

from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.inference.text_files import Texts
from e5jax.inference.vector_quantization import FILE, ranges_of, save_ranges
from e5jax.mesh import open_cpu
from e5jax.workdir import lock


def main(
    model: Path, source: Path, dimensions: tuple[int, ...], field: str = "text", most: int = 10_000
) -> int:
    """Encodes at most so many texts, spread over the file, and adds ranges for these numbers of dimensions; none: the folder's."""
    if not model.is_dir():
        raise ConfigError(
            f"--model={model}: ranges are kept in the folder of the model, and there is no such folder"
        )
    with lock.hold(model / f".{FILE}.lock", f"--model={model}", "calibrate another model"):
        return _calibrate(model, source, dimensions, field, most)


def _calibrate(
    model: Path, source: Path, dimensions: tuple[int, ...], field: str, most: int
) -> int:
    texts = Texts(source, field)
    open_cpu([])
    embedder = Embedder.from_pretrained(model)
    wanted = dimensions or (embedder.dimension,)
    for each in wanted:
        embedder.check_compact(each, "float32")
    every = -(-texts.count // most)
    chosen = [row.text for number, row in enumerate(texts) if number % every == 0]
    vectors = embedder.encode(chosen, show_progress=True, dimensions=embedder.width)
    path = save_ranges(
        model, {each: ranges_of(embedder.shortened(vectors, each)) for each in wanted}, len(chosen)
    )
    print(
        f"calibrate: ranges of {', '.join(map(str, wanted))} dimensions, from {len(chosen):,} texts, in {path}"
    )
    return 0
