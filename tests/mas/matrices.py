"""Published matrices and random ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mas_edge.mas.affinity import AffinityMatrix

LETTERS = ("s", "d", "n", "k", "t")

# TAG (google-research/tag), Taskonomy, lookahead averages; printed there as row = recipient, column = source.
_TAG_PRINTED = [
    [11.999, 0.1154, 0.0489, 0.0045, 0.0088],
    [0.4136, 7.3276, 0.2914, 0.0135, 0.0740],
    [0.1398, 0.2210, 1.0710, 0.0105, 0.0765],
    [0.0211, 0.0134, 0.0107, 0.7339, 0.6897],
    [0.0567, 0.0367, 0.0360, 0.3037, 5.9662],
]
TAG = AffinityMatrix(LETTERS, np.array(_TAG_PRINTED).T)

# The cosine similarities (CS) of the same source: symmetric, no diagonal.
_COSINE_PAIRS = {
    "sd": 0.2596, "sn": 0.2424, "sk": 0.0541, "st": 0.0886, "dn": 0.9116,
    "dk": 0.0915, "dt": 0.1565, "nk": 0.1459, "nt": 0.2801, "kt": 2.968,
}  # fmt: skip
COSINE = AffinityMatrix(
    LETTERS, np.array([[_COSINE_PAIRS.get(i + j, _COSINE_PAIRS.get(j + i, 0.0)) for j in LETTERS] for i in LETTERS])
)


def named(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> AffinityMatrix:
    return AffinityMatrix(tuple(f"task{i}" for i in range(len(values))), values)


def random_matrix(n: int, seed: int) -> AffinityMatrix:
    return named(np.random.default_rng(seed).normal(size=(n, n)))


def matrices(min_tasks: int = 1, max_tasks: int = 7) -> st.SearchStrategy[AffinityMatrix]:
    """Matrices of moderate numbers; small whole numbers are frequent, so that ties are."""
    numbers = st.one_of(st.integers(-2, 2).map(float), st.floats(-100, 100))
    return st.integers(min_tasks, max_tasks).flatmap(lambda n: arrays(np.float64, (n, n), elements=numbers)).map(named)
