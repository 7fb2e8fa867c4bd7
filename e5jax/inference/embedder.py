"""What users import: a Hugging Face folder in, vectors out."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, overload

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from e5jax.config import Mesh as MeshConfig
from e5jax.config import Precision
from e5jax.data.text_rows import Call, calls
from e5jax.data.tokenizer import TextTokenizer
from e5jax.errors import ConfigError
from e5jax.inference.folder_settings import Settings, read_settings, similarity
from e5jax.inference.vector_quantization import Ranges, quantise, ranges_of, shortened
from e5jax.mesh import BATCH, make_mesh
from e5jax.model import hf_weights, modules
from e5jax.model.families import read_positions, read_spec
from e5jax.model.folder import file_of, locate
from e5jax.model.kernels import choose
from e5jax.model.model_def import ModelDef, Parameters, model_def
from e5jax.model.modules import NORMALIZE, Weights
from e5jax.model.pooling import pooled

TOKENS_A_CALL = {
    "cpu": 2_048,
    "accelerator": 16_384,
}  # per device; a CPU's share stays in its cache (benchmarks/encode.py)
BLOCK = 16_384  # texts that are tokenised and packed together


class Embedder:
    """A decoder with its tokenizer, pooling and the modules behind it. Make one with `from_pretrained`."""

    def __init__(
        self,
        made: ModelDef,
        parameters: Parameters,
        tokenizer: TextTokenizer,
        settings: Settings,
        mesh: jax.sharding.Mesh,
        weights: Sequence[Weights] = (),
    ):
        self.tokenizer = tokenizer
        self.settings = settings
        self._blueprint, self._parameters, self._mesh = made, parameters, mesh
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._weights = [
            {name: jax.device_put(value, everywhere) for name, value in own.items()}
            for own in weights
        ]

        def run(
            parameters: Parameters,
            weights: Sequence[Weights],
            skip: Int[Array, ""],
            tokens: Array,
            segments: Array,
            positions: Array,
            ends: Array,
            *,
            shared: int,
        ) -> Array:
            # Compiled for each width of rows, with the kernel that fits it.
            kernel = choose(
                "auto",
                mesh.devices.flat[0].platform,
                parameters["embedding"].dtype.name,
                tokens.shape[1],
            )
            decoder = made.with_kernel(kernel).decoder(parameters)
            hidden = decoder(tokens, segments, positions, shared=shared)
            vectors = pooled(
                hidden,
                segments,
                ends,
                settings.pooling,
                shared,
                0 if settings.include_prompt else skip,
            )
            return modules.apply(settings.inner, weights, vectors)

        self._run = jax.jit(run, static_argnames="shared")

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, dtype: str | None = None, limit: int | None = None
    ) -> Self:
        """Reads a Hugging Face folder of a supported decoder, or downloads it when `folder` is a hub id.

        A folder of sentence-transformers gives the vectors that sentence-transformers gives, or is refused by name.
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
            raise ConfigError(
                f"limit={limit}: must be at least 3, for BOS, EOS and a token between them"
            )
        if limit is not None and limit > (positions := read_positions(path)):
            raise ConfigError(
                f"limit={limit}: the model has {positions} positions (max_position_embeddings in its config.json)"
            )
        tokenizer = TextTokenizer.from_file(
            file_of(path, "tokenizer.json"),
            spec.bos,
            spec.eos,
            limit or settings.limit,
            settings.templates,
            lower=settings.lower,
            frame=settings.frame,
        )
        weights = modules.load(path, settings.inner)
        made = model_def(spec, None, dtype=dtype, remat="nothing", kernel="xla")
        devices = jax.local_devices()
        shards = len(devices) if spec.hidden % len(devices) == 0 else 1
        mesh = make_mesh(MeshConfig(data=-1, fsdp=shards, tensor=1), devices)
        parameters = hf_weights.load(path, spec, made.abstract(made.leaves, mesh, dtype))
        return cls(made, parameters, tokenizer, settings, mesh, weights)

    @property
    def width(self) -> int:
        """Numbers that the model gives, before any are left out."""
        sizes = [module.outputs for module in self.settings.modules if module.outputs]
        return (
            sizes[-1]
            if sizes
            else self._blueprint.spec.hidden * len(self.settings.pooling.split("+"))
        )

    @property
    def dimension(self) -> int:
        """Numbers of a vector, unless another number of them is asked for."""
        return min(self.settings.dimensions or self.width, self.width)

    @overload
    def tokenize(
        self, texts: list[str], instruction: str | None = None, prompt: str | None = None
    ) -> list[list[int]]: ...

    @overload
    def tokenize(
        self, texts: str, instruction: str | None = None, prompt: str | None = None
    ) -> list[int]: ...

    def tokenize(
        self, texts: str | Sequence[str], instruction: str | None = None, prompt: str | None = None
    ) -> list[int] | list[list[int]]:
        """The very ids that are embedded: a list for each text, or for one text its own."""
        if isinstance(texts, str):
            return self.tokenize([texts], instruction, prompt)[0]
        prefix = self._prefix(instruction, prompt)
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(
                    f"texts[{number}] is {type(text).__name__}; every text must be a str"
                )
        ids = self.tokenizer([prefix + text for text in texts])
        self._check_ids(ids)
        return ids

    def _prefix(self, instruction: str | None, prompt: str | None) -> str:
        """What texts begin with."""
        if prompt is not None:
            return prompt
        return (
            self.settings.default_prompt
            if instruction is None
            else self.tokenizer.templates.prefix(instruction)
        )

    def _check_ids(self, ids: list[list[int]]) -> None:
        """Every text has ids, and the model embeds each of them."""
        spec, frame, tokenizer = (
            self._blueprint.spec,
            self.tokenizer.frame,
            self.tokenizer.tokenizer,
        )
        vocab = spec.vocab + spec.added
        if not frame.begin + frame.end and [] in ids:
            raise ConfigError(
                f"texts[{ids.index([])}] has no tokens, and the tokenizer of this folder adds none; leave it out"
            )
        if max((tokenizer.get_vocab_size() - 1, *frame.begin, *frame.end)) < vocab:
            return
        for number, one in enumerate(ids):
            if (largest := max(one)) >= vocab:
                raise ConfigError(
                    f"texts[{number}] has the token {tokenizer.id_to_token(largest)!r} (id {largest}), "
                    f"and the model embeds only ids below {vocab}; use the model's own tokenizer"
                )

    def _prompt_length(self, prompt: str) -> int:
        """Tokens at the start of each text that are not pooled. Raises ConfigError when nothing would be left."""
        if self.settings.include_prompt or not prompt:
            return 0
        length = self.tokenizer.frame.prompt_length(self.tokenizer([prompt])[0])
        if length >= self.tokenizer.limit:
            raise ConfigError(
                f"prompt={prompt!r}: has {length} tokens, as many as a text may have, and this folder leaves prompts out of pooling"
            )
        return length

    def encode(
        self,
        texts: str | Sequence[str],
        instruction: str | None = None,
        show_progress: bool = False,
        *,
        normalise: bool | None = None,
        dimensions: int | None = None,
        precision: Precision = "float32",
        prompt: str | Sequence[str] | None = None,
    ) -> np.ndarray:
        """Vectors, float32 `[b, d]`, or `[d]` of one text.

        `instruction` is the bare task of queries, empty for queries without one, put into the folder's template. `prompt` is put
        before every text instead; a sequence has one for each. With neither, texts have the folder's default prompt, if it has one.

        By default, vectors are those of sentence-transformers: the folder's modules decide their length, which is 1 for E5 and
        for every export, and leading dimensions of a folder that keeps only these are not normalised again.
        `normalise=True` makes the length 1, False leaves out the last normalisation. `dimensions` keeps as many leading numbers of
        each vector, normalised again where the folder normalises. Another `precision` makes integers or bits of these, as
        `compact.quantise` does.

        Raises ConfigError for more dimensions than there are, and for int8 and uint8 without ranges (`calibrate`).
        """
        options = {"normalise": normalise, "dimensions": dimensions, "precision": precision}
        if isinstance(texts, str):
            return self.encode([texts], instruction, show_progress, prompt=prompt, **options)[0]
        if prompt is not None and not isinstance(prompt, str):
            return self._encode_each(texts, prompt, show_progress, options)
        self.check_compact(dimensions, precision)
        if precision != "float32" and normalise is False:
            raise ConfigError(
                f"precision={precision!r}: only unit vectors are quantised; leave normalise on"
            )
        if precision != "float32" and dimensions is None:
            dimensions = self.dimension
        texts = list(texts)
        vectors = np.zeros((len(texts), self.width), np.float32)
        blocks = [slice(start, start + BLOCK) for start in range(0, len(texts), BLOCK)]
        skip = self._prompt_length(self._prefix(instruction, prompt))
        with (
            tqdm(total=len(texts), unit="text", desc="encode", disable=not show_progress) as bar,
            ThreadPoolExecutor(1) as tokenising,
        ):
            ids = deque(
                tokenising.submit(self.tokenize, texts[block], instruction, prompt)
                for block in blocks[:1]
            )
            for number, block in enumerate(blocks):
                after = blocks[number + 1 : number + 2]
                ids.extend(
                    tokenising.submit(self.tokenize, texts[next_], instruction, prompt)
                    for next_ in after
                )
                for places, found in self._encode_ids(ids.popleft().result(), skip):
                    vectors[block][places] = found
                    bar.update(len(places))
        vectors = self.shortened(vectors, dimensions, normalise)
        return quantise(vectors, precision, self.settings.ranges.get(vectors.shape[1]))

    def _encode_each(
        self,
        texts: Sequence[str],
        prompts: Sequence[str],
        show_progress: bool,
        options: dict[str, Any],
    ) -> np.ndarray:
        """Every text behind its own prompt."""
        if len(texts) != len(prompts):
            raise ConfigError(
                f"{len(texts)} texts and {len(prompts)} prompts: give one prompt, or one for each text"
            )
        if self.settings.include_prompt:
            whole = [prompt + text for prompt, text in zip(prompts, texts, strict=True)]
            return self.encode(whole, None, show_progress, prompt="", **options)
        # The tokens of a prompt are left out of pooling, and a call knows of one prompt.
        groups: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            groups.setdefault(prompt, []).append(place)
        parts = [
            self.encode(
                [texts[place] for place in places], None, show_progress, prompt=prompt, **options
            )
            for prompt, places in groups.items()
        ]
        order = np.argsort(
            np.concatenate(
                [np.array(places) for places in groups.values()] or [np.zeros(0, np.int64)]
            )
        )
        return np.concatenate(parts or [self.encode([], prompt="", **options)])[order]

    def query_prompt(self, instruction: str) -> str:
        """The prompt of a query: the folder's template with the instruction; for an empty one, the folder's `query` prompt."""
        return self.tokenizer.templates.prefix(instruction) or self.settings.bare

    def encode_query(
        self,
        texts: str | Sequence[str],
        show_progress: bool = False,
        *,
        dimensions: int | None = None,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """As in sentence-transformers: with the folder's `query` prompt."""
        prompt = self.settings.prompts.get("query", "")
        return self.encode(
            texts, None, show_progress, dimensions=dimensions, precision=precision, prompt=prompt
        )

    def encode_document(
        self,
        texts: str | Sequence[str],
        show_progress: bool = False,
        *,
        dimensions: int | None = None,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """As in sentence-transformers: with the folder's `document` prompt."""
        prompt = self.settings.prompts.get("document", "")
        return self.encode(
            texts, None, show_progress, dimensions=dimensions, precision=precision, prompt=prompt
        )

    def calibrate(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        show_progress: bool = False,
        *,
        dimensions: int | None = None,
    ) -> Ranges:
        """The ranges of int8 and uint8 that these texts give, used from now on; `compact.save_ranges` keeps them in a folder."""
        ranges = ranges_of(
            self.encode(
                list(texts), instruction, show_progress, dimensions=dimensions or self.dimension
            )
        )
        self.settings.ranges[ranges.shape[1]] = ranges
        return ranges

    def shortened(
        self,
        vectors: Float[np.ndarray, "n w"],
        dimensions: int | None = None,
        normalise: bool | None = None,
    ) -> Float[np.ndarray, "n d"]:
        """Vectors before the last normalisation as `encode` gives them with these arguments."""
        kept = self.dimension if dimensions is None else dimensions
        unit = shortened(vectors, kept)  # looks at the number
        if normalise is not None or not self.settings.normalises:
            return unit if normalise else vectors[:, :kept]
        return (
            unit
            if dimensions is not None or self.settings.renormalises
            else shortened(vectors, None)[:, :kept]
        )

    def check_compact(self, dimensions: int | None, precision: Precision) -> None:
        """Raises ConfigError for what `encode` cannot give, before it works for hours."""
        nothing = self.shortened(np.zeros((0, self.width), np.float32), dimensions)
        quantise(nothing, precision, self.settings.ranges.get(nothing.shape[1]))

    def similarity(
        self, a: Float[np.ndarray, "*q d"], b: Float[np.ndarray, "*p d"]
    ) -> Float[np.ndarray, "q p"]:
        """The folder's similarity of each with each, usually the cosine; distances are negative, as in sentence-transformers.

        Integers and bits are for `rescore.search`: their products would not fit a byte.
        """
        if a.dtype.kind != "f" or b.dtype.kind != "f":
            raise ConfigError(
                f"similarity of {a.dtype} and {b.dtype}: vectors must be floats; use e5jax.inference.rescore for the others"
            )
        return similarity(self.settings.similarity, np.atleast_2d(a), np.atleast_2d(b))

    def for_dot_products(self) -> Self:
        """The model with vectors whose dot product is the folder's similarity, which is what a search compares.

        Raises ConfigError where none is.
        """
        kind = self.settings.similarity
        if kind not in ("cosine", "dot"):
            raise ConfigError(
                f"similarity_fn_name={kind!r}: a search compares dot products; only cosine and dot are supported"
            )
        if kind == "cosine" and not (self.settings.normalises and self.dimension == self.width):
            changed = self.settings._replace(
                modules=(*self.settings.modules, NORMALIZE), renormalises=True
            )
            return type(self)(
                self._blueprint,
                self._parameters,
                self.tokenizer,
                changed,
                self._mesh,
                self._weights,
            )
        return self

    def _encode_ids(
        self, ids: list[list[int]], skip: int
    ) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n d"]]]:
        """Places in the list, and their vectors. One call is prepared while the one before it runs."""
        platform = self._mesh.devices.flat[0].platform
        running: deque[tuple[Call, jax.Array]] = deque()

        def collected() -> tuple[np.ndarray, np.ndarray]:
            call, vectors = running.popleft()
            return call.texts, np.asarray(vectors).reshape(-1, self.width)[call.slots]

        with jax.set_mesh(self._mesh):
            leaves_out = jax.device_put(np.int32(skip), NamedSharding(self._mesh, PartitionSpec()))
            placed = NamedSharding(self._mesh, PartitionSpec(BATCH))
            tokens = TOKENS_A_CALL.get(platform, TOKENS_A_CALL["accelerator"])
            spec = self._blueprint.spec
            for call in calls(
                ids, self.tokenizer.limit, tokens, self._mesh.size, spec.window, spec.causal
            ):
                inputs = [jax.device_put(part, placed) for part in call.rows]
                running.append(
                    (
                        call,
                        self._run(
                            self._parameters, self._weights, leaves_out, *inputs, shared=call.shared
                        ),
                    )
                )
                if len(running) > 1:
                    yield collected()
            while running:
                yield collected()
