"""Random vectors for tests."""

import numpy as np


def unit(count: int, dimensions: int, seed: int) -> np.ndarray:
    """Of length 1, float32."""
    made = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def corpus(
    count: int, queries: int, dimensions: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in clusters, and queries near some of them: neighbours are near, as of texts."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((count // 20, dimensions))
    rows = centres[random.integers(len(centres), size=count)] + 0.6 * random.standard_normal(
        (count, dimensions)
    )
    asked = rows[random.choice(count, queries, replace=False)] + 0.4 * random.standard_normal(
        (queries, dimensions)
    )
    return tuple(
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (asked, rows)
    )
