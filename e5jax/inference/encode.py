"""`e5jax encode`: a file of texts into a file of vectors, in the same order. A killed run goes on where its shards end."""

import glob
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from e5jax.config import Precision
from e5jax.errors import ConfigError
from e5jax.inference.embedder import Embedder
from e5jax.inference.shards import embed, model_identity
from e5jax.inference.text_files import Texts
from e5jax.inference.vector_files import check_output, write
from e5jax.inference.vector_quantization import DTYPES, quantise, stored_width
from e5jax.mesh import open_cpu
from e5jax.model.folder import locate
from e5jax.workdir.directory import atomic_output, writing


class Options(NamedTuple):
    """How to encode."""

    field: str = "text"  # of JSONL and Parquet
    instruction: str | None = None  # the bare task of queries
    prompt: str | None = None  # instead: one that the folder names
    compute: str | None = None  # dtype of weights and compute; None: the folder's
    dtype: str = "float32"  # of the vectors that are written
    dimensions: int | None = (
        None  # leading ones that are kept, normalised again; None: as the folder says
    )
    precision: Precision = "float32"  # int8 and others of few bytes, docs/compact.md
    limit: int | None = None  # tokens of a text; None: the folder's
    shard: int = 16_384  # texts encoded between two savings


def main(model: str, source: Path, output: Path, options: Options) -> int:
    """Encodes with a folder's or hub id's model and says what came of it."""
    check_output(output, options.dtype, options.precision)
    with writing("encode", output, inputs=(source, Path(model))):
        texts = Texts(source, options.field)
        open_cpu([])
        folder = locate(model)
        embedder = Embedder.from_pretrained(folder, options.compute, options.limit)
        encode_file(embedder, model_identity(folder), texts, output, options)
    kind = options.dtype if options.precision == "float32" else options.precision
    print(
        f"encode: {texts.count:,} texts, {options.dimensions or embedder.dimension} dimensions, {kind}, in {output}"
    )
    return 0


def encode_file(
    embedder: Embedder, identity: str, texts: Texts, output: Path, options: Options
) -> None:
    """Writes `output`, whole or not at all; what is done so far lies beside it until then."""
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
    same = options._replace(dtype="", dimensions=dimensions, precision="float32", shard=0)
    depends = f"{identity} {texts.fingerprint} {same} {prompt!r}"
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
