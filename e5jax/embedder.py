"""What users import: a Hugging Face folder in, unit vectors out."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from e5jax.compact import Ranges, quantise, ranges_of, shortened
from e5jax.config import Mesh as MeshConfig
from e5jax.config import Precision
from e5jax.errors import ConfigError
from e5jax.mesh import BATCH, make_mesh
from e5jax.model import hf
from e5jax.model.blueprint import Blueprint, Parameters, blueprint
from e5jax.model.families import read_spec
from e5jax.model.folder import file_of, locate
from e5jax.model.kernels import choose
from e5jax.model.pooling import pooled
from e5jax.packing import Call, calls
from e5jax.settings import Settings, read_settings
from e5jax.tokens import TextTokenizer

TOKENS_A_CALL = {"cpu": 2_048, "accelerator": 16_384}  # per device; a CPU's share stays in its cache (benchmarks/encode.py)
BLOCK = 16_384  # texts that are tokenised and packed together


class Embedder:
    """A decoder with its tokenizer and pooling. Make one with `from_pretrained`."""

    def __init__(
        self, made: Blueprint, parameters: Parameters, tokenizer: TextTokenizer, settings: Settings, mesh: jax.sharding.Mesh
    ):
        self.tokenizer = tokenizer
        self.settings = settings
        self._blueprint, self._parameters, self._mesh = made, parameters, mesh

        def run(parameters: Parameters, tokens: Array, segments: Array, positions: Array, ends: Array, *, shared: int) -> Array:
            # Compiled for each width of rows, with the kernel that fits it.
            kernel = choose("auto", mesh.devices.flat[0].platform, parameters["embedding"].dtype.name, tokens.shape[1])
            decoder = made.with_kernel(kernel).decoder(parameters)
            return pooled(decoder(tokens, segments, positions, shared=shared), segments, ends, settings.pooling, shared)

        self._run = jax.jit(run, static_argnames="shared")

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: str | None = None, limit: int | None = None) -> Self:
        """Reads a Hugging Face folder of a supported decoder, or downloads it when `folder` is a hub id.

        An adapter of PEFT is folded into its base in float32, block by block as the weights are read.
        `dtype` is that of weights and compute, float32 or bfloat16; by default the folder's own.
        `limit` is the most tokens of a text; by default the folder's own, or DEFAULT_LIMIT.
        Raises ConfigError for whatever is wrong with the folder, naming it.
        """
        path = locate(str(folder))
        spec, settings = read_spec(path), read_settings(path)
        dtype = dtype or settings.dtype
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype={dtype!r}: must be float32 or bfloat16")
        if limit is not None and limit < 3:
            raise ConfigError(f"limit={limit}: must be at least 3, for BOS, EOS and a token between them")
        tokenizer = TextTokenizer.from_file(
            file_of(path, "tokenizer.json"), spec.bos, spec.eos, limit or settings.limit, settings.templates
        )
        made = blueprint(spec, None, dtype=dtype, remat="nothing", kernel="xla")
        devices = jax.local_devices()
        shards = len(devices) if spec.hidden % len(devices) == 0 else 1
        mesh = make_mesh(MeshConfig(data=-1, fsdp=shards, tensor=1), devices)
        parameters = hf.load(path, spec, made.abstract(made.leaves, mesh, dtype))
        return cls(made, parameters, tokenizer, settings, mesh)

    @property
    def width(self) -> int:
        """Numbers that the model gives, before any are left out."""
        return self._blueprint.spec.hidden

    @property
    def dimension(self) -> int:
        """Numbers of a vector, unless another number of them is asked for."""
        return self.settings.dimensions or self.width

    def tokenize(self, texts: Sequence[str], instruction: str | None = None, prompt: str | None = None) -> list[list[int]]:
        """The very ids that are embedded."""
        begin = self.tokenizer.templates.prefix(instruction) if prompt is None else prompt
        return self.tokenizer([begin + text for text in texts])

    def encode(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        show_progress: bool = False,
        *,
        normalise: bool = True,
        dimensions: int | None = None,
        precision: Precision = "float32",
        prompt: str | None = None,
    ) -> np.ndarray:
        """Unit vectors, float32 `[b, d]`; of any length without `normalise`.

        `instruction` is the bare task of queries, empty for queries without one; with None texts are documents. The folder's
        templates say what both begin with, or `prompt` does instead.

        `dimensions` keeps as many leading numbers of each vector, before that; by default as many as the folder says.
        With another `precision` integers or bits, as `compact.quantise` makes them of unit vectors. Raises ConfigError for more
        dimensions than there are, and for int8 and uint8 without ranges (`calibrate`).
        """
        dimensions = self.settings.dimensions if dimensions is None else dimensions
        self.check_compact(dimensions, precision)
        if precision != "float32" and not normalise:
            raise ConfigError(f"precision={precision!r}: only unit vectors are quantised; leave normalise on")
        vectors = np.zeros((len(texts), self.width), np.float32)
        blocks = [slice(start, start + BLOCK) for start in range(0, len(texts), BLOCK)]
        with (
            tqdm(total=len(texts), unit="text", desc="encode", disable=not show_progress) as bar,
            ThreadPoolExecutor(1) as tokenising,
        ):
            ids = deque(tokenising.submit(self.tokenize, texts[block], instruction, prompt) for block in blocks[:1])
            for number, block in enumerate(blocks):
                after = blocks[number + 1 : number + 2]
                ids.extend(tokenising.submit(self.tokenize, texts[next_], instruction, prompt) for next_ in after)
                for places, found in self._encode_ids(ids.popleft().result()):
                    vectors[block][places] = found
                    bar.update(len(places))
        if not normalise:
            return vectors[:, :dimensions]
        vectors = shortened(vectors, dimensions)
        return quantise(vectors, precision, self.settings.ranges.get(vectors.shape[1]))

    def encode_query(
        self,
        texts: Sequence[str],
        show_progress: bool = False,
        *,
        dimensions: int | None = None,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """As in sentence-transformers: with the folder's `query` prompt."""
        prompt = self.settings.prompts.get("query", "")
        return self.encode(texts, None, show_progress, dimensions=dimensions, precision=precision, prompt=prompt)

    def encode_document(
        self,
        texts: Sequence[str],
        show_progress: bool = False,
        *,
        dimensions: int | None = None,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """As in sentence-transformers: with the folder's `document` prompt."""
        prompt = self.settings.prompts.get("document", "")
        return self.encode(texts, None, show_progress, dimensions=dimensions, precision=precision, prompt=prompt)

    def calibrate(
        self, texts: Sequence[str], instruction: str | None = None, show_progress: bool = False, *, dimensions: int | None = None
    ) -> Ranges:
        """The ranges of int8 and uint8 that these texts give, used from now on; `compact.save_ranges` keeps them in a folder."""
        ranges = ranges_of(self.encode(texts, instruction, show_progress, dimensions=dimensions))
        self.settings.ranges[ranges.shape[1]] = ranges
        return ranges

    def check_compact(self, dimensions: int | None, precision: Precision) -> None:
        """Raises ConfigError for what `encode` cannot give, before it works for hours."""
        nothing = shortened(np.zeros((0, self.width), np.float32), dimensions)
        quantise(nothing, precision, self.settings.ranges.get(nothing.shape[1]))

    @staticmethod
    def similarity(a: Float[np.ndarray, "q d"], b: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "q p"]:
        """Cosine of unit vectors. Integers and bits are for `rescore.search`: their products would not fit a byte."""
        if a.dtype.kind != "f" or b.dtype.kind != "f":
            raise ConfigError(f"similarity of {a.dtype} and {b.dtype}: vectors must be floats; use e5jax.rescore for the others")
        return a @ b.T

    def _encode_ids(self, ids: list[list[int]]) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n d"]]]:
        """Places in the list, and their vectors. One call is prepared while the one before it runs."""
        platform = self._mesh.devices.flat[0].platform
        running: deque[tuple[Call, jax.Array]] = deque()

        def collected() -> tuple[np.ndarray, np.ndarray]:
            call, vectors = running.popleft()
            return call.texts, np.asarray(vectors).reshape(-1, self.width)[call.slots]

        with jax.set_mesh(self._mesh):
            placed = NamedSharding(self._mesh, PartitionSpec(BATCH))
            tokens = TOKENS_A_CALL.get(platform, TOKENS_A_CALL["accelerator"])
            spec = self._blueprint.spec
            for call in calls(ids, self.tokenizer.limit, tokens, self._mesh.size, spec.window, spec.causal):
                inputs = [jax.device_put(part, placed) for part in call.rows]
                running.append((call, self._run(self._parameters, *inputs, shared=call.shared)))
                if len(running) > 1:
                    yield collected()
            while running:
                yield collected()
