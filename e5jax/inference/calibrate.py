"""`e5jax calibrate`: measures the ranges of int8 vectors and stores them in the model's folder."""

from pathlib import Path

from e5jax.config.commands import CalibrateOptions
from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.inference.text_files import Texts
from e5jax.inference.vector_quantization import FILE, ranges_of, save_ranges
from e5jax.mesh import open_cpu
from e5jax.workdir import lock


def main(options: CalibrateOptions) -> int:
    """Encodes a sample of the texts and stores the ranges; returns the exit code."""
    model = options.model
    if options.most < 2:
        raise ConfigError(f"--most={options.most}: must be at least 2")
    if not model.is_dir():
        raise ConfigError(f"--model={model}: no such folder; ranges are stored in a model's folder")
    with lock.hold(model / f".{FILE}.lock", f"--model={model}", "calibrate another model"):
        return _calibrate(model, options)


def _calibrate(model: Path, options: CalibrateOptions) -> int:
    texts = Texts(options.input, options.field)
    open_cpu([])
    embedder = Embedder.from_pretrained(model)
    dimensions = options.dimensions or (embedder.dimension,)
    for count in dimensions:
        embedder.check_compact(count, "float32")
    stride = -(-texts.count // options.most)
    sample = [row.text for number, row in enumerate(texts) if number % stride == 0]
    vectors = embedder.encode(sample, show_progress=True, dimensions=embedder.width)
    ranges = {count: ranges_of(embedder.shortened(vectors, count)) for count in dimensions}
    path = save_ranges(model, ranges, len(sample))
    print(
        f"calibrate: ranges of {', '.join(map(str, dimensions))} dimensions, "
        f"from {len(sample):,} texts, in {path}"
    )
    return 0
