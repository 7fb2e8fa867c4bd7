"""The contrastive objective in float64, pair by pair and text by text, from its definition."""

import numpy as np
import torch

from e5jax.config import Loss
from e5jax.train.negatives import BatchInfo

PLAIN = Loss()


def infonce(
    q: np.ndarray, p: np.ndarray, terms: BatchInfo, loss: Loss = PLAIN, positives: int = 1
) -> tuple:
    """((loss, accuracy), (gradient of queries, of passages)); the first of as many passages a query are its positives."""
    tensors = [torch.from_numpy(x.astype(np.float64)).requires_grad_() for x in (q, p)]
    found, hits = [], []
    for size, weight in zip(
        loss.dimensions or [q.shape[1]],
        loss.weights or [1.0] * max(1, len(loss.dimensions)),
        strict=True,
    ):
        queries, passages = (
            (x[:, :size] / x[:, :size].norm(dim=1, keepdim=True)) if loss.dimensions else x
            for x in tensors
        )
        asked = [_query(queries, passages, terms, loss, i, positives) for i in range(len(q))]
        found.append(weight * torch.stack([one for one, _ in asked]).mean())
        hits.append((size, float(np.mean([share for _, share in asked]))))
    total = torch.stack(found).sum()
    total.backward()
    return (total.item(), max(hits)[1]), tuple(x.grad.numpy() for x in tensors)


def _query(
    queries: torch.Tensor,
    passages: torch.Tensor,
    terms: BatchInfo,
    loss: Loss,
    i: int,
    positives: int,
) -> tuple[torch.Tensor, float]:
    """Mean loss of a query's pairs, and the share that is scored highest."""
    first = i * (len(passages) // len(queries))
    places = [first + k for k in range(positives) if terms.passages[first + k] >= 0]
    pairs = [_pair(queries, passages, terms, loss, (i, place, positives)) for place in places]
    return torch.stack([one for one, _ in pairs]).mean(), float(np.mean([hit for _, hit in pairs]))


def _pair(
    queries: torch.Tensor,
    passages: torch.Tensor,
    terms: BatchInfo,
    loss: Loss,
    pair: tuple[int, int, int],
) -> tuple[torch.Tensor, bool]:
    """Loss of a query and one of its positives, and whether it scores that highest."""
    i, place, positives = pair
    warmth = float(terms.temperatures[i])
    sides = {"query": queries[i], "doc": passages[place]}
    own = sides["query"] @ sides["doc"]
    each = len(passages) // len(queries)
    by_direction: dict[str, list[torch.Tensor]] = {}
    for direction, places in negatives(terms, loss, i, positives).items():
        logits = by_direction[direction] = []
        for j in places:
            cosine = (
                sides[direction.partition("_to_")[0]]
                @ (queries if direction.endswith("to_query") else passages)[j]
            )
            ceiling = (
                None
                if loss.margin is None
                else (own * loss.margin if loss.margin_kind == "ratio" else own + loss.margin)
            )
            if ceiling is not None and cosine > ceiling:
                continue
            hard = direction == "query_to_doc" and j // each == i
            harder = (
                direction == "query_to_doc"
                and {"all_negatives": True, "hard_negatives": hard, "in_batch_negatives": not hard}[
                    loss.hardness_mode
                ]
            )
            logits.append(
                cosine / warmth + (loss.hardness_strength * cosine.detach() if harder else 0)
            )
    return _together(by_direction, own / warmth, loss), all(
        bool(own / warmth > one) for one in by_direction["query_to_doc"]
    )


def negatives(terms: BatchInfo, loss: Loss, i: int, positives: int) -> dict[str, list[int]]:
    """By direction the places of what query i and its positives are told from, before any margin."""
    each = len(terms.passages) // len(terms.queries)
    mine = {int(terms.queries[i]), *terms.passages[i * each : i * each + positives].tolist()} - {-1}

    def allowed(direction: str, j: int) -> bool:
        owner = j if direction.endswith("to_query") else j // each
        if direction.endswith("to_query"):
            text, partners = (
                int(terms.queries[j]),
                set(terms.passages[j * each : j * each + positives].tolist()),
            )
        else:
            text, partners = (
                int(terms.passages[j]),
                {int(terms.queries[owner])} if j % each < positives else set(),
            )
        if text < 0 or (owner != i and not terms.in_batch[i]):
            return False
        if owner == i and not (direction == "query_to_doc" and j % each >= positives):
            return False
        return not (loss.mask_duplicates and (text in mine or partners & mine))

    counts = {"query": len(terms.queries), "doc": len(terms.passages)}
    return {
        way: [j for j in range(counts[way.partition("_to_")[2]]) if allowed(way, j)]
        for way in loss.directions
    }


def _together(
    by_direction: dict[str, list[torch.Tensor]], own: torch.Tensor, loss: Loss
) -> torch.Tensor:
    """Cross-entropy with the pair itself as the target, once in each direction that has it."""
    groups = {
        way: ([own] if way in ("query_to_doc", "doc_to_query") else []) + logits
        for way, logits in by_direction.items()
    }
    if loss.partition == "joint":
        groups = {"all": [one for group in groups.values() for one in group]}
    found = []
    for group in groups.values():
        if group:
            logits = torch.stack(group)
            entropy = torch.logsumexp(logits, 0) - own
            found.append(
                (1 - loss.smoothing) * entropy
                + loss.smoothing * (torch.logsumexp(logits, 0) - logits.mean())
            )
    return torch.stack(found).mean()
