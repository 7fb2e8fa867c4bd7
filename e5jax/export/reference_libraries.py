"""What transformers, PEFT and sentence-transformers make of a folder: `python -m e5jax.export.reference_libraries QUESTION ANSWER`.

A process of its own, whose memory ends with it: nothing of e5jax imports this, and it imports nothing of e5jax. The question
flows in as JSON, what the libraries say flows out as JSON. All compute is in float32 on the CPU, whatever the weights are.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

DTYPE = torch.float32
BATCH = 8
ALL = 2**31  # dimensions, whatever the folder keeps of them


class Question(NamedTuple):
    """Texts as users give them, and as the checkpoint was given them."""

    folder: str
    base: str  # of an adapter; empty: the folder is a whole model
    queries: list[str]
    documents: list[str]
    templated: list[str]  # the queries in their template
    documents_templated: list[str]
    long: str  # a text beyond any limit
    pooling: str  # what the card says to do with hidden states: last, mean, weighted_mean


def answer(question: Question) -> dict[str, Any]:
    """Ids, settings and vectors: the vectors by library, those of the queries before those of the documents."""
    folder = question.folder
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model, info = AutoModel.from_pretrained(
        folder, dtype=DTYPE, local_files_only=True, output_loading_info=True
    )
    texts = question.templated + question.documents_templated
    embedder = SentenceTransformer(
        folder, local_files_only=True, device="cpu", model_kwargs={"dtype": DTYPE}
    )
    asked, offered = (
        encode(part, batch_size=BATCH, show_progress_bar=False, truncate_dim=ALL).tolist()
        for encode, part in (
            (embedder.encode_query, question.queries),
            (embedder.encode_document, question.documents),
        )
    )
    padded = tokenizer(texts, truncation=True, padding=True)
    vectors = {
        "sentence-transformers": asked + offered,
        "transformers": by_hand(model, tokenizer, texts, question.pooling),
    }
    if question.base:
        vectors["PEFT"] = by_hand(_with_peft(question), tokenizer, texts, question.pooling)
    tokenizer.padding_side = "left"
    vectors["transformers, padded on the left"] = by_hand(model, tokenizer, texts, question.pooling)
    return {
        "ids": tokenizer([*texts, question.long], truncation=True).input_ids,
        "padded right": all(
            mask == sorted(mask, reverse=True) for mask in padded["attention_mask"]
        ),
        "missing": sorted(info["missing_keys"]),
        "similarity": embedder.similarity_fn_name,
        "limit": embedder.max_seq_length,
        "dimensions": embedder.truncate_dim,
        "vectors": vectors,
    }


def by_hand(
    model: Any, tokenizer: PreTrainedTokenizerBase, texts: list[str], pooling: str
) -> list[list[float]]:
    """The recipe of the model card."""
    found: list[list[float]] = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(
            texts[start : start + BATCH], truncation=True, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"]
        if pooling == "last":
            place = (mask * torch.arange(mask.shape[1])).argmax(
                1
            )  # of the last 1, on whichever side the padding is
            vectors = hidden[torch.arange(len(mask)), place]
        else:
            weights = mask * mask.cumsum(1) if pooling == "weighted_mean" else mask
            vectors = (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
        found += torch.nn.functional.normalize(vectors, dim=-1).tolist()
    return found


def _with_peft(question: Question) -> torch.nn.Module:
    from peft import PeftModel  # noqa: PLC0415  a merged folder does not need it

    base = AutoModel.from_pretrained(question.base, dtype=DTYPE, local_files_only=True)
    return PeftModel.from_pretrained(base, question.folder, local_files_only=True)


def main(question: Path, to: Path) -> None:
    """Reads the question and writes the answer."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    found = answer(Question(**json.loads(question.read_text(encoding="utf-8"))))
    to.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
