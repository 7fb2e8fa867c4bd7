"""The objective of a run in words, for the model card: what is not the default has a row."""

from collections.abc import Iterator

from e5jax.config import Loss, Training

WAYS = {
    "query_to_doc": "query to document",
    "doc_to_query": "document to query",
    "query_to_query": "query to other queries",
    "doc_to_doc": "document to other documents",
}
HARDER = {
    "all_negatives": "every negative document",
    "hard_negatives": "the query's own hard negatives",
    "in_batch_negatives": "in-batch negative documents",
}


def objective(run: Training) -> Iterator[tuple[str, str]]:
    """Rows of a table: name, words."""
    loss = run.loss
    yield (
        "loss",
        f"InfoNCE over cosine / {loss.temperature:g}, in-batch negatives and hard ones, {_directions(loss)}",
    )
    if loss.bounds:
        yield (
            "temperature",
            f"learned from {loss.temperature:g} on, between {loss.bounds[0]:g} and {loss.bounds[1]:g}",
        )
    if masks := list(_masks(loss)):
        yield "no negatives", "; ".join(masks)
    if loss.hardness_strength:
        yield (
            "hardness",
            f"{loss.hardness_strength:g} × cosine, without a gradient, added to the logit of {HARDER[loss.hardness_mode]}",
        )
    if loss.smoothing:
        yield "label smoothing", f"{loss.smoothing:g} of the target over all candidates"
    if loss.dimensions:
        weights = loss.weights or [1.0] * len(loss.dimensions)
        each = ", ".join(
            f"{size} × {weight:g}" for size, weight in zip(loss.dimensions, weights, strict=True)
        )
        yield (
            "prefixes",
            f"the loss is a sum over leading dimensions, each of length 1 again, by weight: {each}",
        )
    if run.model.rounding != "float32":
        yield (
            "rounding",
            f"vectors as {run.model.rounding} in the loss, gradients as if they were not rounded",
        )


def _directions(loss: Loss) -> str:
    ways = ", ".join(WAYS[way] for way in loss.directions)
    if len(loss.directions) == 1:
        return ways
    return f"{ways}; {'one softmax over all' if loss.partition == 'joint' else 'the mean of a softmax for each'}"


def _masks(loss: Loss) -> Iterator[str]:
    if loss.mask_duplicates:
        yield "texts like the query or a positive of it, and what belongs to these"
    if loss.margin is not None:
        by = f"times {loss.margin:g}" if loss.margin_kind == "ratio" else f"plus {loss.margin:g}"
        yield f"texts with a cosine above the positive's {by}"
