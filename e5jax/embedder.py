"""What users import: a Hugging Face folder in, unit vectors out."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from e5jax.config import Mesh as MeshConfig
from e5jax.config import Pooling
from e5jax.errors import ConfigError
from e5jax.mesh import BATCH, make_mesh
from e5jax.model import hf
from e5jax.model.blueprint import Blueprint, Parameters, blueprint
from e5jax.model.families import read_spec
from e5jax.model.folder import file_of, locate, read_object
from e5jax.model.kernels import choose
from e5jax.model.pooling import pooled
from e5jax.packing import Call, calls
from e5jax.tokens import TextTokenizer, query_text

DEFAULT_LIMIT = 512  # tokens a text, when the folder does not say
TOKENS_A_CALL = {"cpu": 2_048, "accelerator": 16_384}  # per device; a CPU's share stays in its cache (benchmarks/encode.py)
BLOCK = 16_384  # texts that are tokenised and packed together


class Settings(NamedTuple):
    """What a folder says about how its model embeds."""

    pooling: Pooling
    limit: int
    prompts: dict[str, str]
    dtype: str


def read_settings(folder: Path) -> Settings:
    """Reads the sentence-transformers files, an adapter's own before its base's; without any, as E5-Mistral does it: last token."""

    def read(name: str) -> dict:
        path = file_of(folder, name)
        return read_object(path) if path.is_file() else {}

    model = read("config.json")
    dtype = model.get("dtype") or model.get("torch_dtype") or "float32"
    return Settings(
        pooling=_pooling(read("1_Pooling/config.json"), folder),
        limit=read("sentence_bert_config.json").get("max_seq_length") or DEFAULT_LIMIT,
        prompts=read("config_sentence_transformers.json").get("prompts") or {},
        dtype="bfloat16" if dtype == "float16" else dtype,
    )


def _pooling(config: dict, folder: Path) -> Pooling:
    # sentence-transformers 6 names the mode; earlier versions set one of several flags.
    mode = config.get("pooling_mode") or next(
        (name for name, on in config.items() if name.startswith("pooling_mode_") and on), "lasttoken"
    )
    modes: dict[str, Pooling] = {
        "lasttoken": "last",
        "mean": "mean",
        "pooling_mode_lasttoken": "last",
        "pooling_mode_mean_tokens": "mean",
    }
    if mode not in modes:
        raise ConfigError(f"{folder}/1_Pooling/config.json: pooling {mode!r} is not supported; supported are lasttoken and mean")
    return modes[mode]


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
        tokenizer = TextTokenizer.from_file(file_of(path, "tokenizer.json"), spec.bos, spec.eos, limit or settings.limit)
        made = blueprint(spec, None, dtype=dtype, remat="nothing", kernel="xla")
        devices = jax.local_devices()
        shards = len(devices) if spec.hidden % len(devices) == 0 else 1
        mesh = make_mesh(MeshConfig(data=-1, fsdp=shards, tensor=1), devices)
        parameters = hf.load(path, spec, made.abstract(made.leaves, mesh, dtype))
        return cls(made, parameters, tokenizer, settings, mesh)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._blueprint.spec.hidden

    def tokenize(self, texts: Sequence[str], instruction: str | None = None) -> list[list[int]]:
        """The very ids that are embedded."""
        return self.tokenizer([query_text(text, instruction) for text in texts])

    def encode(
        self,
        texts: Sequence[str],
        instruction: str | None = None,
        show_progress: bool = False,
        *,
        normalise: bool = True,
        dimensions: int | None = None,
    ) -> Float[np.ndarray, "b d"]:
        """Unit vectors, float32; of any length without `normalise`. `instruction` is the bare task of queries only.

        `dimensions` keeps as many leading numbers of each vector, before that.
        """
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        blocks = [slice(start, start + BLOCK) for start in range(0, len(texts), BLOCK)]
        with (
            tqdm(total=len(texts), unit="text", desc="encode", disable=not show_progress) as bar,
            ThreadPoolExecutor(1) as tokenising,
        ):
            ids = deque(tokenising.submit(self.tokenize, texts[block], instruction) for block in blocks[:1])
            for number, block in enumerate(blocks):
                ids.extend(tokenising.submit(self.tokenize, texts[next_], instruction) for next_ in blocks[number + 1 : number + 2])
                for places, found in self._encode_ids(ids.popleft().result()):
                    vectors[block][places] = found
                    bar.update(len(places))
        vectors = vectors[:, :dimensions]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12) if normalise else vectors

    def encode_query(self, texts: Sequence[str], show_progress: bool = False) -> Float[np.ndarray, "b d"]:
        """As in sentence-transformers: with the folder's `query` prompt."""
        return self._encode_prompted(texts, "query", show_progress)

    def encode_document(self, texts: Sequence[str], show_progress: bool = False) -> Float[np.ndarray, "b d"]:
        """As in sentence-transformers: with the folder's `document` prompt."""
        return self._encode_prompted(texts, "document", show_progress)

    @staticmethod
    def similarity(a: Float[np.ndarray, "q d"], b: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "q p"]:
        """Cosine of unit vectors."""
        return a @ b.T

    def _encode_prompted(self, texts: Sequence[str], name: str, show_progress: bool) -> Float[np.ndarray, "b d"]:
        prompt = self.settings.prompts.get(name, "")
        return self.encode([prompt + text for text in texts], show_progress=show_progress)

    def _encode_ids(self, ids: list[list[int]]) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n d"]]]:
        """Places in the list, and their vectors. One call is prepared while the one before it runs."""
        platform = self._mesh.devices.flat[0].platform
        running: deque[tuple[Call, jax.Array]] = deque()

        def collected() -> tuple[np.ndarray, np.ndarray]:
            call, vectors = running.popleft()
            return call.texts, np.asarray(vectors).reshape(-1, self.dimension)[call.slots]

        with jax.set_mesh(self._mesh):
            placed = NamedSharding(self._mesh, PartitionSpec(BATCH))
            tokens = TOKENS_A_CALL.get(platform, TOKENS_A_CALL["accelerator"])
            for call in calls(ids, self.tokenizer.limit, tokens, self._mesh.size, self._blueprint.spec.window):
                inputs = [jax.device_put(part, placed) for part in call.rows]
                running.append((call, self._run(self._parameters, *inputs, shared=call.shared)))
                if len(running) > 1:
                    yield collected()
            while running:
                yield collected()
