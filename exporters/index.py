"""The FAISS index over the items: its kind is chosen by measuring recall with plain and with steered queries.

Steering moves queries off the data's distribution, where indexes lose recall unnoticed: so both count.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch

from exporters.models import Floats

RECALL_DEPTH = 100
REQUIRED_RECALL = 0.95
# Up to this many items one pass over all of them is quick enough, and nothing is lost.
FLAT_LIMIT = 200_000

# Items that reach the exact 100th score up to this share of it count as found: equal scores have no order.
_TIE_TOLERANCE = 1e-6
_SCORES_AT_ONCE = 2**26
_HNSW_LINKS = 32
_HNSW_BUILD_BREADTH = 80
_HNSW_SEARCH_BREADTHS = (128, 256, 512)
# More probes than a quarter of the cells cost as much as scoring everything.
_IVF_PROBED_SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)


class ChosenIndex(NamedTuple):
    """An index and what was measured of it."""

    index: Any
    """A faiss.Index by inner product."""
    kind: str
    """"flat", "ivf" or "hnsw"."""
    recall_plain: float
    """Share of the exact best 100 items that it finds, rounded down to 4 digits."""
    recall_steered: float


def choose_index(
    vectors: Floats,
    plain: Floats,
    steered: Floats,
    flat_limit: int = FLAT_LIMIT,
    required_recall: float = REQUIRED_RECALL,
) -> ChosenIndex:
    """The cheapest kind of index that finds enough of the exact best 100.

    Args:
        vectors: [n_items, p], with the bias as last column if there is one.
        plain: [queries, p], ending in 1 if there is a bias.
        steered: [queries, p], likewise.
        flat_limit: catalogues up to this size get an exact index.
        required_recall: share of the exact best 100 that an approximate index must find, for both kinds of
            queries.
    """
    if len(vectors) > flat_limit:
        for kind, index in _candidates(vectors):
            recalls = measure_recall(index, vectors, plain), measure_recall(index, vectors, steered)
            if min(recalls) >= required_recall:
                return ChosenIndex(index, kind, *recalls)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    recalls = measure_recall(index, vectors, plain), measure_recall(index, vectors, steered)
    return ChosenIndex(index, "flat", *recalls)


def measure_recall(index: Any, vectors: Floats, queries: Floats) -> float:
    """Share of the exact best 100 items [of n_items, p] that the index finds for the queries [m, p]."""
    depth = min(RECALL_DEPTH, len(vectors))
    _, found = index.search(queries, depth)
    worst = _exact_scores(vectors, queries, depth)[:, -1:]
    scores = np.einsum("mrp,mp->mr", vectors[found], queries)
    slack = _TIE_TOLERANCE * np.abs(scores).max(axis=1, keepdims=True)
    hits = (scores >= worst - slack) & (found >= 0)
    return float(np.floor(hits.mean() * 10_000) / 10_000)


def _exact_scores(vectors: Floats, queries: Floats, depth: int) -> Floats:
    rows = max(_SCORES_AT_ONCE // len(vectors), 1)
    items = torch.from_numpy(vectors)
    chunks = torch.split(torch.from_numpy(queries), rows)
    best = [torch.topk(chunk @ items.T, depth, dim=1).values for chunk in chunks]
    return torch.cat(best).numpy()


def _candidates(vectors: Floats) -> Iterator[tuple[str, Any]]:
    # IVF first: it builds in a fraction of the time. nprobe and efSearch are stored with the index.
    n_items, width = vectors.shape
    n_cells = int(4 * np.sqrt(n_items))
    quantizer = faiss.IndexFlatIP(width)
    ivf = faiss.IndexIVFFlat(quantizer, width, n_cells, faiss.METRIC_INNER_PRODUCT)
    ivf.train(vectors)
    ivf.add(vectors)
    for share in _IVF_PROBED_SHARES:
        ivf.nprobe = max(int(n_cells * share), 1)
        yield "ivf", ivf
    hnsw = faiss.IndexHNSWFlat(width, _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction = _HNSW_BUILD_BREADTH
    threads = faiss.omp_get_max_threads()
    # With several threads the links depend on timing, and the same run would not give the same bundle.
    faiss.omp_set_num_threads(1)
    try:
        hnsw.add(vectors)
    finally:
        faiss.omp_set_num_threads(threads)
    for breadth in _HNSW_SEARCH_BREADTHS:
        hnsw.hnsw.efSearch = breadth
        yield "hnsw", hnsw
