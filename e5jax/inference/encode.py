"""`e5jax encode`: a file of texts into a file of vectors, in the same order. A killed run goes on where its shards end."""

import glob
import shutil
from functools import partial
from pathlib import Path

import numpy as np

from e5jax.config.commands import EncodeOptions
from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.inference.shards import embed, model_identity
from e5jax.inference.text_files import Texts
from e5jax.inference.vector_files import check_output, write
from e5jax.inference.vector_quantization import DTYPES, quantise, stored_width
from e5jax.mesh import open_cpu
from e5jax.model.folder import locate
from e5jax.workdir.directory import atomic_output, writing


def main(options: EncodeOptions) -> int:
    """Encodes a file and prints a summary; returns the exit code."""
    output = options.output
    if options.shard < 1:
        raise ConfigError(f"--shard={options.shard}: must be at least 1")
    check_output(output, options.dtype, options.precision)
    with writing("encode", output, inputs=(options.input, Path(options.model))):
        texts = Texts(options.input, options.field)
        open_cpu([])
        folder = locate(options.model)
        embedder = Embedder.from_pretrained(folder, options.compute, options.limit)
        encode_file(embedder, model_identity(folder), texts, options)
    kind = options.dtype if options.precision == "float32" else options.precision
    print(
        f"encode: {texts.count:,} texts, {options.dimensions or embedder.dimension} dimensions, {kind}, in {output}"
    )
    return 0


def encode_file(embedder: Embedder, identity: str, texts: Texts, options: EncodeOptions) -> None:
    """Writes the output atomically; until then finished shards lie in a hidden folder beside it."""
    output = options.output
    prompt = _prompt(embedder, options.prompt)
    if options.dimensions is not None and not 1 <= options.dimensions <= embedder.width:
        raise ConfigError(f"--dimensions={options.dimensions}: the model has {embedder.width}")
    embedder.check_compact(options.dimensions, options.precision)
    # Integers are made of vectors that are normalised again.
    dimensions = options.dimensions or (
        None if options.precision == "float32" else embedder.dimension
    )
    encode = partial(
        embedder.encode, instruction=options.instruction, dimensions=dimensions, prompt=prompt
    )
    place = output.with_name(f".{output.name}.parts")
    settings = (options.field, options.instruction, options.compute, dimensions, options.limit)
    depends = f"{identity} {texts.fingerprint} {settings} {prompt!r}"
    shards = embed(encode, (row.text for row in texts), texts.count, depends, place, options.shard)
    ids = (row.id for row in texts) if texts.named else None
    width, precision = shards[0].shape[1], options.precision
    stored = (quantise(shard, precision, embedder.settings.ranges.get(width)) for shard in shards)
    dtype = options.dtype if precision == "float32" else np.dtype(DTYPES[precision]).name
    with atomic_output(output, "encode") as temporary:
        write(temporary, stored, (texts.count, stored_width(width, precision)), dtype, ids)
    del shards
    for left in output.parent.glob(f"{glob.escape(place.name)}-*"):
        shutil.rmtree(left)


def _prompt(embedder: Embedder, name: str | None) -> str | None:
    if name is None:
        return None
    if name not in embedder.settings.prompts:
        raise ConfigError(
            f"--prompt={name}: the folder has {', '.join(embedder.settings.prompts) or 'none'}"
        )
    return embedder.settings.prompts[name]
