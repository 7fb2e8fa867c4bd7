"""A tiny random Mistral as sentence-transformers saves it."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import MistralConfig, MistralModel, PreTrainedTokenizerFast

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}


def save_tiny(root: Path, texts: Sequence[str], limit: int = 128) -> Path:
    """With BOS and EOS added by tokenizer.json, and a default prompt that no task asks for."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    config.head_dim, config.sliding_window = 16, None
    model = MistralModel(config)
    for (
        parameter
    ) in model.parameters():  # unlike fresh ones, these weights tell one text from another
        torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2)
    model.save_pretrained(root / "base")
    _tokenizer(texts).save_pretrained(root / "base")
    body = Transformer(str(root / "base"), max_seq_length=limit)
    modules = [body, Pooling(64, pooling_mode="lasttoken"), Normalize()]
    model_with_pooling = SentenceTransformer(
        modules=modules, prompts={"query": "never: ", "document": ""}, default_prompt_name="query"
    )
    model_with_pooling.save(str(root / "model"), create_model_card=False)
    # Where sentence-transformers before 6 and `e5jax export` keep the limit.
    settings = root / "model" / "sentence_bert_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "max_seq_length": limit}))
    return root / "model"


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)
