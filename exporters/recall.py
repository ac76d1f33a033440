"""How much of the exact best an index finds: for plain and for steered queries, without and with filters.

Steering moves queries off the data's distribution, and filters ask for items far down the list:
indexes lose recall there unnoticed.
"""

from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from exporters.models import Floats

RECALL_DEPTH = 100
DEPTHS = (20, RECALL_DEPTH)
"""Lengths of lists whose items must be found."""
_CHOSEN_DEPTH = 128
"""The service fetches powers of two: this is enough for the best 100."""
FILTER_SHARES = (0.5, 0.05, 0.005)
"""Of the items, what the filters keep that an index is measured with: at random, and those of a region."""
MARGIN = 16
"""The service asks for so many more: how many of a search's items a filter keeps is a matter of chance."""
WIDENING = 4
"""So many times as many, where too few of those were kept."""
DEAR = 10
"""It asks for no more than this part of what a filter keeps, unless that lies everywhere; else it
has all of it scored."""
FAR = 4
"""Nor then if the cells that are looked into hold more than so many times as many items."""
MANY = 1 / 16
"""Above this share of all items it asks an index that can pick them out for those alone."""
SPREAD = 2
"""Then it looks into so many times as many cells as the share makes likely, of those that hold any."""
FILTERED_QUERIES = 64
"""Of each kind: deep searches take long."""
# Items that reach the exact last score up to this share of it count as found: equal scores have no
# order.
_TIE_TOLERANCE = 1e-6
_ITEMS_AT_ONCE = 2**16
_PATCHES = 200
_NUMBERS_AT_ONCE = 2**26


class Recalls(NamedTuple):
    """Shares of the exact best items that are among what the index names, rounded down to 4 digits."""

    plain: float
    """Of the best 100."""
    steered: float
    """Of the best 100."""
    filtered: float
    """The lowest of those for the best 20 and 100 under each filter."""
    short: float
    """The lower of plain and steered for the best 20."""


class Truth:
    """The exact best of a catalogue for queries, kept to judge indexes by.

    Args:
        vectors: [n_items, p], memory-mapped or not.
        plain: [queries, p].
        steered: [queries, p].
        seed: of the filters.
    """

    def __init__(self, vectors: Floats, plain: Floats, steered: Floats, seed: int = 0) -> None:
        self._vectors, self._queries, self._n_plain = (
            vectors,
            np.vstack([plain, steered]),
            len(plain),
        )
        self._best = best_scores(vectors, self._queries)
        filtered = np.vstack([plain[:FILTERED_QUERIES], steered[:FILTERED_QUERIES]])
        rng = np.random.default_rng(seed)
        self._filters = [
            _Filtered(filtered, allowed, best_scores(vectors, filtered, allowed))
            for share in FILTER_SHARES
            for allowed in (rng.random(len(vectors)) < share, _region(vectors, share, rng))
            if allowed.any()
        ]

    def recalls(self, index: Any, over_fetch: float) -> Recalls:
        """What a faiss.Index finds if over_fetch times as many items are asked for as are needed."""
        found = {depth: self._share(index, over_fetch, depth) for depth in DEPTHS}
        filtered = (
            one.share(index, self._vectors, over_fetch, depth)
            for one in self._filters
            for depth in DEPTHS
        )
        return Recalls(*found[RECALL_DEPTH], min(filtered, default=1.0), min(found[DEPTHS[0]]))

    def _share(self, index: Any, over_fetch: float, depth: int) -> tuple[float, float]:
        items = search(index, self._queries, over_fetch * depth, over_fetch)
        hits = _hits(self._vectors, self._queries, items, self._best[:, :depth])
        return _rounded(hits[: self._n_plain]), _rounded(hits[self._n_plain :])


class _Filtered(NamedTuple):
    """Queries with a filter, and the exact best that it lets through."""

    queries: Floats
    allowed: NDArray[np.bool_]
    best: Floats

    def share(self, index: Any, vectors: Floats, over_fetch: float, depth: int) -> float:
        """As the service does it: more where too few are allowed, and all of them where that is cheaper."""
        enough, allowed_count = (
            int(np.ceil(over_fetch * depth)),
            int(np.count_nonzero(self.allowed)),
        )
        needed = enough + MARGIN
        fetched, rows, found = (
            needed * index.ntotal // allowed_count,
            np.arange(len(self.queries)),
            [],
        )
        comes_by = _comes_by(index, self.allowed, fetched, over_fetch)
        worthwhile = allowed_count if comes_by else allowed_count // DEAR
        while fetched < worthwhile and len(rows):
            items = search(index, self.queries[rows], fetched, over_fetch)
            kept = (items >= 0) & self.allowed[items]
            items = np.where(kept & (kept.cumsum(axis=1) <= needed), items, -1)
            done = kept.sum(axis=1) >= enough
            found.append(self._hits(vectors, rows[done], items[done], depth))
            rows, fetched = rows[~done], fetched * WIDENING
        if _selects(index) and allowed_count > MANY * index.ntotal:
            items = search_among(index, self.queries[rows], needed, over_fetch, self.allowed)
            done = (items >= 0).sum(axis=1) >= min(enough, allowed_count)
            found.append(self._hits(vectors, rows[done], items[done], depth))
            rows = rows[~done]
        found.append(np.ones(len(rows), np.float32))
        return _rounded(np.concatenate(found))

    def _hits(
        self, vectors: Floats, rows: NDArray[np.int64], items: NDArray[np.int64], depth: int
    ) -> Floats:
        return _hits(vectors, self.queries[rows], items, self.best[rows, :depth])


def measure_recall(index: Any, vectors: Floats, queries: Floats, over_fetch: float = 1.0) -> float:
    """Share of the exact best 100 items [of n_items, p] that are found for the queries [m, p]."""
    items = search(index, queries, over_fetch * RECALL_DEPTH, over_fetch)
    return _rounded(_hits(vectors, queries, items, best_scores(vectors, queries)))


def search(index: Any, queries: Floats, count: float, over_fetch: float) -> NDArray[np.int64]:
    """Item indices, int64 [m, count], -1 for none: as the service asks an index (docs/bundle.md).

    For more items than 128 times the over-fetch, it looks into as many times as many cells, or as
    far.
    """
    depth, parameters = min(int(np.ceil(count)), index.ntotal), None
    factor = depth / (_CHOSEN_DEPTH * over_fetch)
    if isinstance(index, faiss.IndexIVF) and factor > 1:
        probes = min(int(index.nprobe * factor) + 1, index.nlist)
        parameters = faiss.SearchParametersIVF(nprobe=probes)
    elif isinstance(index, faiss.IndexHNSW) and factor > 1:
        parameters = faiss.SearchParametersHNSW(efSearch=int(index.hnsw.efSearch * factor) + 1)
    return _found(index, queries, depth, parameters)


def search_among(
    index: Any, queries: Floats, count: int, over_fetch: float, allowed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The same among the allowed items, bool [n_items], in the cells that hold any of them."""
    depth = min(count, index.ntotal)
    selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if not isinstance(index, faiss.IndexIVF):
        return _found(index, queries, depth, faiss.SearchParameters(sel=selector))
    held = _held(index, allowed)
    deeper = max(depth / (_CHOSEN_DEPTH * over_fetch), 1.0)
    wider = SPREAD * index.ntotal / max(int(allowed.sum()), 1) * deeper
    probes = min(int(index.nprobe * wider) + 1, max(int(held.sum()), 1))
    cells = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(np.packbits(held, bitorder="little")))
    parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes, quantizer_params=cells)
    return _found(index, queries, depth, parameters)


def _comes_by(index: Any, allowed: NDArray[np.bool_], count: int, over_fetch: float) -> bool:
    """Whether most of the cells hold allowed items, and a search for so many does not read far."""
    if not isinstance(index, faiss.IndexIVF):
        return False
    read = index.ntotal * index.nprobe / index.nlist * count / (_CHOSEN_DEPTH * over_fetch)
    return read < FAR * np.count_nonzero(allowed) and bool(_held(index, allowed).mean() > 0.5)


def _held(index: Any, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cells hold any of the allowed items."""
    lists = index.invlists
    held = np.zeros(index.nlist, bool)
    for cell in range(index.nlist):
        held[cell] = allowed[faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell))].any()
    return held


def _selects(index: Any) -> bool:
    """A graph has no list to read, and FAISS's fast scan without cells takes no selectors."""
    return isinstance(index, faiss.IndexIVF | faiss.IndexScalarQuantizer)


def _found(index: Any, queries: Floats, depth: int, parameters: Any) -> NDArray[np.int64]:
    padded = np.zeros((len(queries), index.d), np.float32)
    padded[:, : queries.shape[1]] = queries
    _, items = index.search(padded, depth, params=parameters)
    return np.asarray(items, np.int64)


def best_scores(
    vectors: Floats, queries: Floats, allowed: NDArray[np.bool_] | None = None
) -> Floats:
    """The largest products of queries [m, p] with the allowed vectors: [m, at most 100], largest first."""
    best, asked = torch.empty(len(queries), 0), torch.from_numpy(queries)
    for start in range(0, len(vectors), _ITEMS_AT_ONCE):
        block = vectors[start : start + _ITEMS_AT_ONCE]
        if allowed is not None:
            block = block[allowed[start : start + _ITEMS_AT_ONCE]]
        scores = torch.hstack([best, asked @ torch.from_numpy(np.array(block)).T])
        best = torch.topk(scores, min(RECALL_DEPTH, scores.shape[1]), dim=1).values
    return best.numpy()


def _region(vectors: Floats, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """About a share of the items, in patches here and there, as those of a genre lie: bool [n_items]."""
    seeds = vectors[np.sort(rng.choice(len(vectors), min(_PATCHES, len(vectors)), replace=False))]
    blocks = range(0, len(vectors), _ITEMS_AT_ONCE)
    patches = np.concatenate(
        [(vectors[start : start + _ITEMS_AT_ONCE] @ seeds.T).argmax(axis=1) for start in blocks]
    )
    order = rng.permutation(len(seeds))
    sizes = np.bincount(patches, minlength=len(seeds))[order].cumsum()
    return np.isin(patches, order[: int(np.searchsorted(sizes, share * len(vectors))) + 1])


def _hits(vectors: Floats, queries: Floats, items: NDArray[np.int64], best: Floats) -> Floats:
    """For each query, the share of its best scores [m, n] that are among those of the items [m, found]."""
    size = max(_NUMBERS_AT_ONCE // (items.shape[1] * vectors.shape[1]), 1)
    shares = [np.empty(0, np.float32)]
    for start in range(0, len(queries), size):
        rows = slice(start, start + size)
        scores = np.vecdot(vectors[items[rows]], queries[rows, None])
        slack = _TIE_TOLERANCE * np.abs(best[rows]).max(axis=1, keepdims=True)
        reached = (items[rows] >= 0) & (scores >= best[rows, -1:] - slack)
        shares.append(np.minimum(reached.sum(axis=1) / best.shape[1], 1.0))
    return np.concatenate(shares)


def _rounded(hits: Floats) -> float:
    return float(np.floor(hits.mean() * 10_000) / 10_000)
