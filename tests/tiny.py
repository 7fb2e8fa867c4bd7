"""Tiny models and batches for tests."""

from collections.abc import Callable
from itertools import islice

import jax
import numpy as np
import peft
import torch
import transformers
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from e5jax.config import Lora, Loss
from e5jax.config import Mesh as MeshConfig
from e5jax.data.packing import Layout, pack
from e5jax.data.records import Batch, Ids
from e5jax.mesh import BATCH, make_mesh
from e5jax.model import hf_weights
from e5jax.model.families.mistral import config_from_spec
from e5jax.model.model_def import ModelDef, Parameters, model_def
from e5jax.model.spec import Spec
from e5jax.train.step import StepConfig

SPEC = Spec("mistral", 97, 64, 128, 3, 4, 2, 16, 10_000.0, None, 1e-5, 1, 2)
LORA = Lora(rank=4, alpha=8.0, dropout=0.0)

# What PEFT 0.21 does with transformers 5.23.
PEFT_WARNING = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"


def mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh over the first data × fsdp × tensor of the eight simulated devices."""
    return make_mesh(MeshConfig(data, fsdp, tensor), jax.devices()[: data * fsdp * tensor])


def made(spec: Spec = SPEC, lora: Lora | None = LORA, remat: str = "projections") -> ModelDef:
    return model_def(spec, lora, dtype="float32", remat=remat, kernel="xla")


def numbers(of: ModelDef, seed: int = 0) -> dict[str, np.ndarray]:
    """Random parameters, as NumPy: the same for every mesh. Both LoRA factors are non-zero, norms are not one."""
    random = np.random.default_rng(seed)
    return {
        name: (
            1 + 0.1 * random.standard_normal(leaf.shape)
            if name.endswith("scale")
            else 0.05 * random.standard_normal(leaf.shape)
        ).astype(np.float32)
        for name, leaf in sorted(of.leaves.items())
    }


def place(of: ModelDef, values: dict[str, np.ndarray], on: Mesh) -> tuple[Parameters, Parameters]:
    """(trained, frozen) on the mesh."""
    wanted = of.abstract(of.leaves, on, "float32")
    arrays = {name: jax.device_put(values[name], leaf.sharding) for name, leaf in wanted.items()}
    return {n: arrays[n] for n in of.trained}, {n: arrays[n] for n in of.frozen}


def rows(on: Mesh, *arrays: np.ndarray) -> list[jax.Array]:
    """Arrays `[n, ...]` with their rows spread over the mesh, as a chunk of a batch lies."""
    return [jax.device_put(array, NamedSharding(on, PartitionSpec(BATCH))) for array in arrays]


def stored(of: ModelDef, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The base parameters under their Hugging Face names and in their Hugging Face shapes."""
    return {
        name: np.ascontiguousarray(hf_weights.to_stored(path, values[path], layer))
        for path, leaf in of.leaves.items()
        if not leaf.is_adapter
        for layer, name in enumerate(hf_weights.names_of(of.spec, path))
    }


def torch_mistral(of: ModelDef, values: dict[str, np.ndarray]) -> transformers.PreTrainedModel:
    """The same decoder in transformers, with the same numbers, float32."""
    config = transformers.AutoConfig.for_model(
        **config_from_spec(of.spec, 512, "float32"), pad_token_id=None
    )
    model = transformers.AutoModel.from_config(config).eval()
    model.load_state_dict(
        {name: torch.from_numpy(value) for name, value in stored(of, values).items()}
    )
    return model


def peft_mistral(of: ModelDef, values: dict[str, np.ndarray]) -> peft.PeftModel:
    """The decoder in transformers with our adapters put into PEFT's."""
    (lora,) = set(of.lora.values())
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=[f"{target}_proj" for target in of.lora],
    )
    model = peft.get_peft_model(torch_mistral(of, values), config)
    with torch.no_grad():
        for name, layer, factor in adapters(of):
            peft_factor(model, name, layer, factor).copy_(
                torch.from_numpy(values[f"{name}/{factor}"][layer].T.copy())
            )
    return model


def adapters(of: ModelDef) -> list[tuple[str, int, str]]:
    """(map, layer, factor) of every adapter matrix."""
    named = [name.rsplit("/", 1) for name, leaf in of.leaves.items() if leaf.is_adapter]
    return [(name, layer, factor) for name, factor in named for layer in range(of.spec.layers)]


def peft_factor(model: torch.nn.Module, name: str, layer: int, factor: str) -> torch.nn.Parameter:
    """The parameter of PEFT, `[out, in]`, of one of our matrices."""
    _, block, target = name.split("/")
    module = getattr(
        model.base_model.model.layers[layer], {"attention": "self_attn", "ff": "mlp"}[block]
    )
    linear = getattr(module, f"{target}_proj")
    return (linear.lora_A if factor == "lora_a" else linear.lora_B)["default"].weight


def texts(count: int, longest: int, vocab: int = 97, seed: int = 0) -> list[list[int]]:
    """Random ids with BOS and EOS."""
    random = np.random.default_rng(seed)
    return [
        [1, *random.integers(3, vocab, random.integers(1, longest - 1)).tolist(), 2]
        for _ in range(count)
    ]


def examples(queries: int, negatives: int, longest: int, seed: int = 0) -> list[Ids]:
    """Random ids, all with as many hard negatives."""
    passages = iter(texts(queries * (1 + negatives), longest, seed=seed + 1_000))
    return [
        Ids(query, list(islice(passages, 1 + negatives)), 0.05, True)
        for query in texts(queries, longest, seed=seed)
    ]


def mixed(of: list[Ids]) -> list[Ids]:
    """Some with fewer hard negatives, some without in-batch negatives, some of another temperature."""

    def change(number: int, one: Ids) -> Ids:
        passages = one.passages[: 1 + number % len(one.passages)]
        return Ids(
            one.query,
            passages,
            (0.05, 0.2)[number // 2 % 2],
            len(passages) == 1 or number % 5 in (0, 3),
        )

    return [change(number, one) for number, one in enumerate(of)]


def batch(
    queries: int,
    negatives: int,
    chunks: int,
    width: int = 24,
    seed: int = 0,
    *,
    texts_a_row: int = 1,
    shards: int = 1,
    positives: int = 1,
    change: Callable[[list[Ids]], list[Ids]] = list,
) -> Batch:
    """Of the 1 + negatives passages of a query, at most `positives` may be such."""
    rows = queries * (2 + negatives) // chunks
    to = Layout(chunks, rows, width, texts_a_row, shards, 1 + negatives, positives)
    return pack(change(examples(queries, negatives, width, seed)), to)


def objective(
    of: ModelDef,
    pooling: str = "last",
    scores: str = "dense",
    block: int = 4_096,
    kept_chunks: int = 0,
) -> StepConfig:
    return StepConfig(of, pooling, Loss(0.05, scores, block), kept_chunks, seed=0)


def unpack(of: Batch, positives: int = 1) -> list[Ids]:
    """The examples of a batch, in the order in which they were packed; checks what belongs to each text."""
    (shards, each), slots = of.queries.shape, of.ends.shape[-1]
    chunks, rows, width = of.tokens.shape
    wide = [
        np.asarray(x).reshape(chunks, shards, rows // shards, width).swapaxes(0, 1) for x in of[:3]
    ]
    tokens, segments, positions = (x.reshape(shards, -1, width) for x in wide)
    ends = (
        np.asarray(of.ends)
        .reshape(chunks, shards, -1, slots)
        .swapaxes(0, 1)
        .reshape(shards, -1, slots)
    )

    def text(shard: int, place: int) -> list[int]:
        row, slot = divmod(place, slots)
        (where,) = np.nonzero(segments[shard, row] == slot + 1)
        assert list(where) == list(range(where[0], ends[shard, row, slot] + 1))
        assert list(positions[shard, row, where]) == list(range(len(where)))
        return tokens[shard, row, where].tolist()

    def example(shard: int, i: int) -> Ids:
        own = np.asarray(of.passages)[shard].reshape(each, -1)[i]
        parts = own[:positives], own[positives:]
        assert all(
            np.array_equal(part >= 0, np.sort(part < 0) == 0) for part in parts
        )  # what is missing is missing at the end
        assert own[0] >= 0
        return Ids(
            text(shard, of.queries[shard, i]),
            [text(shard, place) for place in own[own >= 0]],
            float(of.temperatures[shard, i]),
            bool(of.in_batch[shard, i]),
            int(np.sum(parts[0] >= 0)),
        )

    return [example(shard, i) for shard in range(shards) for i in range(each)]
