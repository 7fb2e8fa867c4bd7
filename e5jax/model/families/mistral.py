"""The Mistral family: Hugging Face config <-> Spec, and the names of its weights.

Its format has no biases. A decoder that has been given some is written as one of Llama's, which is the same but for the window.
"""

from e5jax.errors import ConfigError
from e5jax.model.spec import Spec

MODEL_TYPE = "mistral"
ARCHITECTURE = "MistralModel"

# Our variable -> Hugging Face tensor. `{}` is the layer. Kernels are [in, out] here and [out, in] there.
NAMES: dict[str, str] = {
    "embedding": "embed_tokens.weight",
    "norm/scale": "norm.weight",
    "layers/attention_norm/scale": "layers.{}.input_layernorm.weight",
    "layers/ff_norm/scale": "layers.{}.post_attention_layernorm.weight",
    **{f"layers/attention/{x}/kernel": f"layers.{{}}.self_attn.{x}_proj.weight" for x in ("q", "k", "v", "o")},
    **{f"layers/ff/{x}/kernel": f"layers.{{}}.mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
    **{f"layers/attention/{x}/bias": f"layers.{{}}.self_attn.{x}_proj.bias" for x in ("q", "k", "v", "o")},
    **{f"layers/ff/{x}/bias": f"layers.{{}}.mlp.{x}_proj.bias" for x in ("gate", "up", "down")},
}

# Tensors of a causal language model that an embedder has no use for.
IGNORED = ("lm_head.weight", "rotary_emb.inv_freq")


def spec_from_config(config: dict, where: str) -> Spec:
    """Reads a Hugging Face config.json; raises ConfigError for what the decoder does not implement."""
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    if missing := [name for name in needed if name not in config]:
        raise ConfigError(f"{where}: {', '.join(missing)} missing")
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise ConfigError(f"{where}: hidden_act={act!r}; only silu is supported")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if (kind := rope.get("rope_type", rope.get("type", "default"))) != "default":
        raise ConfigError(f"{where}: rope_type={kind!r}; only the default rotary embedding is supported")
    heads = config["num_attention_heads"]
    return Spec(
        family=MODEL_TYPE,
        vocab=config["vocab_size"],
        hidden=config["hidden_size"],
        ff=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        # The defaults are those of transformers' MistralConfig.
        kv_heads=config.get("num_key_value_heads", 8) or heads,
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        theta=float(rope.get("rope_theta", config.get("rope_theta", 10_000.0))),
        window=config.get("sliding_window", 4_096),
        epsilon=config.get("rms_norm_eps", 1e-6),
        bos=config.get("bos_token_id", 1),
        eos=config.get("eos_token_id", 2),
        causal=config.get("is_causal") is not False,
    )


def config_from_spec(spec: Spec, limit: int, dtype: str) -> dict:
    """The config.json of an exported folder; `limit` is the trained number of tokens a text."""
    own = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE, "sliding_window": spec.window}
    if spec.bias or spec.family == "llama":
        own = {"architectures": ["LlamaModel"], "model_type": "llama", "attention_bias": spec.bias, "mlp_bias": spec.bias}
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
        "max_position_embeddings": max(limit, 32_768),
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
