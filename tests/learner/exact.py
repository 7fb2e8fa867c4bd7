"""The contrastive objective in float64, pair by pair and text by text, from its definition."""

import numpy as np
import torch

from e5jax.config import Loss
from e5jax.learner.candidates import Terms

PLAIN = Loss()


def infonce(q: np.ndarray, p: np.ndarray, terms: Terms, loss: Loss = PLAIN) -> tuple:
    """((loss, accuracy), (gradient of queries, of passages)); the first of as many passages a query is its positive."""
    tensors = [torch.from_numpy(x.astype(np.float64)).requires_grad_() for x in (q, p)]
    found, hits = [], []
    for size, weight in zip(loss.dimensions or [q.shape[1]], loss.weights or [1.0] * max(1, len(loss.dimensions)), strict=True):
        queries, passages = ((x[:, :size] / x[:, :size].norm(dim=1, keepdim=True)) if loss.dimensions else x for x in tensors)
        pairs = [_pair(queries, passages, terms, loss, i) for i in range(len(q))]
        found.append(weight * torch.stack([one for one, _ in pairs]).mean())
        hits.append((size, float(np.mean([hit for _, hit in pairs]))))
    total = torch.stack(found).sum()
    total.backward()
    return (total.item(), max(hits)[1]), tuple(x.grad.numpy() for x in tensors)


def _pair(queries: torch.Tensor, passages: torch.Tensor, terms: Terms, loss: Loss, i: int) -> tuple[torch.Tensor, bool]:
    """Loss of a query and its positive, and whether it scores that highest."""
    each, warmth = len(passages) // len(queries), float(terms.temperatures[i])
    sides = {"q": queries[i], "d": passages[i * each]}
    own = sides["q"] @ sides["d"]
    mine = {int(terms.queries[i]), int(terms.passages[i * each])}
    by_direction: dict[str, list[torch.Tensor]] = {}
    for direction in loss.directions:
        logits = by_direction[direction] = []
        for j, vector in enumerate(queries if direction[2] == "q" else passages):
            if not _is_negative(terms, loss, direction, i, j, each, mine):
                continue
            cosine = sides[direction[0]] @ vector
            ceiling = None if loss.margin is None else (own * loss.margin if loss.margin_kind == "ratio" else own + loss.margin)
            if ceiling is not None and cosine > ceiling:
                continue
            hard = direction == "q2d" and j // each == i
            harder = direction == "q2d" and {"all": True, "hard": hard, "in_batch": not hard}[loss.harder]
            logits.append(cosine / warmth + (loss.hardness * cosine.detach() if harder else 0))
    return _together(by_direction, own / warmth, loss), all(bool(own / warmth > one) for one in by_direction["q2d"])


def _is_negative(terms: Terms, loss: Loss, direction: str, i: int, j: int, each: int, mine: set[int]) -> bool:
    owner = j if direction[2] == "q" else j // each
    if direction[2] == "q":
        text, partner = int(terms.queries[j]), int(terms.passages[j * each])
    else:
        text, partner = int(terms.passages[j]), int(terms.queries[owner]) if j % each == 0 else None
    if text < 0 or (owner != i and not terms.in_batch[i]):
        return False
    if owner == i and not (direction == "q2d" and j % each):
        return False
    return not (loss.mask_duplicates and (text in mine or partner in mine))


def _together(by_direction: dict[str, list[torch.Tensor]], own: torch.Tensor, loss: Loss) -> torch.Tensor:
    """Cross-entropy with the pair itself as the target, once in each direction that has it."""
    groups = {way: ([own] if way in ("q2d", "d2q") else []) + logits for way, logits in by_direction.items()}
    if loss.partition == "joint":
        groups = {"all": [one for group in groups.values() for one in group]}
    found = []
    for group in groups.values():
        if group:
            logits = torch.stack(group)
            entropy = torch.logsumexp(logits, 0) - own
            found.append((1 - loss.smoothing) * entropy + loss.smoothing * (torch.logsumexp(logits, 0) - logits.mean()))
    return torch.stack(found).mean()
