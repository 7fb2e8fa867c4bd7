"""The Mistral family: Hugging Face config <-> Spec, and the names of its weights.

Its format has no biases. A decoder that has been given some is written as one of Llama's, which is the same but for the window.
"""

from e5jax.errors import ConfigError
from e5jax.jsonl import flag, number, positive
from e5jax.model.spec import Spec

MODEL_TYPE = "mistral"
ARCHITECTURE = "MistralModel"
POSITIONS = 131_072  # where a config does not say
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)

# Our variable -> Hugging Face tensor. `{}` is the layer. Kernels are [in, out] here and [out, in] there.
NAMES: dict[str, str] = {
    "embedding": "embed_tokens.weight",
    "norm/scale": "norm.weight",
    "layers/attention_norm/scale": "layers.{}.input_layernorm.weight",
    "layers/ff_norm/scale": "layers.{}.post_attention_layernorm.weight",
    **{
        f"layers/attention/{x}/kernel": f"layers.{{}}.self_attn.{x}_proj.weight"
        for x in ("q", "k", "v", "o")
    },
    **{f"layers/ff/{x}/kernel": f"layers.{{}}.mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
    **{
        f"layers/attention/{x}/bias": f"layers.{{}}.self_attn.{x}_proj.bias"
        for x in ("q", "k", "v", "o")
    },
    **{f"layers/ff/{x}/bias": f"layers.{{}}.mlp.{x}_proj.bias" for x in ("gate", "up", "down")},
}

# Tensors of a causal language model that an embedder has no use for.
IGNORED = ("lm_head.weight", "rotary_emb.inv_freq")


def spec_from_config(config: dict, where: str) -> Spec:
    """Reads a Hugging Face config.json; raises ConfigError for what the decoder does not implement.

    An EOS that is a list of ids, or a BOS or EOS that is null, is None here: the tokenizer decides (`read_spec`).
    """
    sizes = {name: positive(config, name, where) for name in SIZES}
    if missing := [name for name, size in sizes.items() if size is None]:
        raise ConfigError(f"{where}: {', '.join(missing)} missing")
    vocab, hidden, ff, layers, heads = (size or 0 for size in sizes.values())
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise ConfigError(f"{where}: hidden_act={act!r}; only silu is supported")
    # The defaults are those of transformers' MistralConfig.
    kv_heads = positive({"num_key_value_heads": 8} | config, "num_key_value_heads", where) or heads
    head_size = positive(config, "head_dim", where) or hidden // heads
    if heads % kv_heads or not head_size or head_size % 2:
        raise ConfigError(
            f"{where}: num_attention_heads={heads}, num_key_value_heads={kv_heads}, head_dim={head_size}; "
            "the first must be a multiple of the second, and the third even"
        )
    window = positive({"sliding_window": 4_096} | config, "sliding_window", where)
    epsilon = number({"rms_norm_eps": 1e-6} | config, "rms_norm_eps", where)
    return Spec(
        family=MODEL_TYPE,
        vocab=vocab,
        hidden=hidden,
        ff=ff,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        theta=_theta(config, where),
        window=window,
        epsilon=1e-6 if epsilon is None else epsilon,
        bos=_special(config, "bos_token_id", 1, where),
        eos=_special(config, "eos_token_id", 2, where),
        causal=flag(config, "is_causal", True, where),
    )


def _theta(config: dict, where: str) -> float:
    """The base of the rotary embedding, which transformers 5 keeps among `rope_parameters`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise ConfigError(
            f"{where}: rope_parameters={rope!r}; only one rotary embedding for all layers is supported"
        )
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or rope.get(
        "partial_rotary_factor", config.get("partial_rotary_factor", 1)
    ) not in (None, 1):
        raise ConfigError(
            f"{where}: rope_type={kind!r}; only the default rotary embedding is supported"
        )
    theta = number(rope, "rope_theta", where) or number(
        {"rope_theta": 10_000.0} | config, "rope_theta", where
    )
    if theta is None or theta <= 0:
        raise ConfigError(f"{where}: rope_theta={theta}; must be above 0")
    return theta


def _special(config: dict, name: str, default: int, where: str) -> int | None:
    value = config.get(name, default)
    ids = value if isinstance(value, list) else [value]
    if not all(
        one is None or (isinstance(one, int) and not isinstance(one, bool) and one >= 0)
        for one in ids
    ):
        raise ConfigError(f"{where}: {name}={value!r}; must be the id of a token, or null")
    return None if isinstance(value, list) else value


def config_from_spec(spec: Spec, positions: int, dtype: str) -> dict:
    """The config.json of an exported folder; `positions` are those that the model has been made for."""
    own = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE, "sliding_window": spec.window}
    if spec.bias or spec.family == "llama":
        own = {
            "architectures": ["LlamaModel"],
            "model_type": "llama",
            "attention_bias": spec.bias,
            "mlp_bias": spec.bias,
        }
    return {
        **own,
        "vocab_size": spec.vocab + spec.added,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.ff,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rms_norm_eps": spec.epsilon,
        "rope_theta": spec.theta,  # transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.theta},  # transformers 5
        **({} if spec.causal else {"is_causal": False}),
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "bos_token_id": spec.bos,
        "eos_token_id": spec.eos,
        "tie_word_embeddings": False,
        "use_cache": False,
        "torch_dtype": dtype,  # transformers 4
        "dtype": dtype,  # transformers 5
    }
