"""What users import: a Hugging Face folder in, unit vectors out."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float
from tqdm import tqdm

from e5jax.config import Mesh as MeshConfig
from e5jax.config import Pooling
from e5jax.errors import ConfigError
from e5jax.mesh import BATCH, make_mesh
from e5jax.model import hf
from e5jax.model.blueprint import Blueprint, Parameters, blueprint
from e5jax.model.families import read_spec
from e5jax.model.kernels import choose
from e5jax.model.pooling import pooled
from e5jax.packing import Layout, fill
from e5jax.tokens import TextTokenizer, query_text

DEFAULT_LIMIT = 512  # tokens a text, when the folder does not say
TOKENS_A_CALL = 16_384  # per device
SHORTEST = 32  # narrowest row, in tokens


class Settings(NamedTuple):
    """What a folder says about how its model embeds."""

    pooling: Pooling
    limit: int
    prompts: dict[str, str]
    dtype: str


def read_settings(folder: Path) -> Settings:
    """Reads the sentence-transformers files; a bare model folder pools the last token, as E5-Mistral does."""

    def read(name: str) -> dict:
        return json.loads((folder / name).read_text(encoding="utf-8")) if (folder / name).is_file() else {}

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

        def run(parameters: Parameters, tokens: Array, segments: Array, positions: Array, ends: Array) -> Array:
            # Compiled for each width of rows, with the kernel that fits it.
            kernel = choose("auto", mesh.devices.flat[0].platform, parameters["embedding"].dtype.name, tokens.shape[1])
            decoder = made.with_kernel(kernel).decoder(parameters)
            return pooled(decoder(tokens, segments, positions), segments, ends, settings.pooling)

        self._run = jax.jit(run)

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: str | None = None) -> Self:
        """Reads a merged Hugging Face folder of a supported decoder, or downloads it when `folder` is a hub id.

        `dtype` is that of weights and compute, float32 or bfloat16; by default the folder's own.
        Raises ConfigError for whatever is wrong with the folder, naming it.
        """
        path = hf.locate(str(folder))
        spec, settings = read_spec(path), read_settings(path)
        dtype = dtype or settings.dtype
        if dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype={dtype!r}: must be float32 or bfloat16")
        tokenizer = TextTokenizer.from_file(path / "tokenizer.json", spec.bos, spec.eos, settings.limit)
        made = blueprint(spec, None, dtype=dtype, remat="nothing", kernel="xla")
        shards = len(jax.devices()) if spec.hidden % len(jax.devices()) == 0 else 1
        mesh = make_mesh(MeshConfig(data=-1, fsdp=shards, tensor=1))
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
        self, texts: Sequence[str], instruction: str | None = None, show_progress: bool = False, *, normalise: bool = True
    ) -> Float[np.ndarray, "b d"]:
        """Unit vectors, float32; as the model gives them without `normalise`. `instruction` is the bare task of queries only."""
        ids = self.tokenize(texts, instruction)
        vectors = np.zeros((len(ids), self.dimension), np.float32)
        with tqdm(total=len(ids), unit="text", desc="encode", disable=not show_progress) as bar:
            for places, rows, width in _plan([len(text) for text in ids], self.tokenizer.limit, self._mesh.size):
                vectors[places] = self._encode_rows([ids[place] for place in places], rows, width)
                bar.update(len(places))
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

    def _encode_rows(self, ids: list[list[int]], rows: int, width: int) -> np.ndarray:
        filler = [[self.tokenizer.bos, self.tokenizer.eos]] * (rows - len(ids))
        batch, (places,) = fill([ids + filler], Layout(chunks=1, rows=rows, width=width, texts_a_row=1, shards=1, passages=0))
        placed = NamedSharding(self._mesh, PartitionSpec(BATCH))
        with jax.set_mesh(self._mesh):
            inputs = [jax.device_put(part[0], placed) for part in batch]
            vectors = np.asarray(self._run(self._parameters, *inputs))[:, 0]
        return vectors[places[: len(ids)]]


def _plan(lengths: Sequence[int], limit: int, devices: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Groups texts of like length: (places, rows, width), few different shapes, the longest first.

    Widths are powers of two, cut at the limit; rows fill a budget of tokens or, for fewer texts, the next power of two.
    """
    order = np.argsort(np.array(lengths, np.int64), kind="stable")[::-1]
    start = 0
    while start < len(order):
        width = min(max(SHORTEST, _power_of_two(lengths[order[start]])), limit)
        most = max(1, TOKENS_A_CALL // width) * devices
        places = order[start : start + most]
        rows = min(most, -(-_power_of_two(len(places)) // devices) * devices)
        yield places, rows, width
        start += len(places)


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << (number - 1).bit_length()
