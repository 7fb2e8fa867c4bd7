"""InfoNCE in float64, query by query, from the formula."""

import numpy as np

from e5jax.learner.candidates import Terms


def infonce(q: np.ndarray, p: np.ndarray, terms: Terms) -> tuple:
    """((loss, accuracy), (gradient of queries, of passages)); the first of as many passages a query is its positive."""
    q, p, each = q.astype(np.float64), p.astype(np.float64), len(p) // len(q)
    losses, hits, of_queries, of_passages = [], [], np.zeros_like(q), np.zeros_like(p)
    for i, (query, temperature, in_batch) in enumerate(zip(q, terms.temperatures.astype(np.float64), terms.in_batch, strict=True)):
        own = range(i * each, (i + 1) * each)
        among = [number for number in range(len(p)) if terms.there[number] and (in_batch or number in own)]
        scores = p[among] @ query / temperature
        shares = np.exp(scores - scores.max())
        positive = among.index(own[0])
        losses.append(np.log(shares.sum()) + scores.max() - scores[positive])
        hits.append(scores.argmax() == positive)
        slopes = (shares / shares.sum() - (np.arange(len(among)) == positive)) / (len(q) * temperature)
        of_queries[i] = slopes @ p[among]
        of_passages[among] += np.outer(slopes, query)
    return (np.mean(losses), np.mean(hits)), (of_queries, of_passages)
