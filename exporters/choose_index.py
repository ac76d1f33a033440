"""Chooses the FAISS index over the items: the quickest kind that finds enough, by measurement.

What is compared is the CPU time of an answer on one thread, rescoring included: one query at a
time, as on an idle server, and in batches, as on a busy one. Recall is the condition: recall.py.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from trimtab.manifest import FLAT

from exporters.determinism import one_thread
from exporters.index_kinds import KINDS, IndexKind
from exporters.recall import Recalls, Truth
from service.arrays import Floats
from service.ranking.order import score
from service.retrieval.faiss_index import FaissIndex

FLAT_LIMIT = 10_000
"""Items. Up to this size every item is scored: that is about as quick as an index and exact."""

_SMALLEST_INDEXED = 100
"""Items. FAISS cannot learn cells and codes from fewer vectors."""

_CLEARLY_QUICKER = 0.9
"""Largest ratio of costs at which a less simple kind is preferred. It lies beyond the noise of the
measurement."""

_ROUNDS = 7
"""Times that each contender is timed; the least time counts. More take longer and vary less."""

_BATCH = 32
"""Queries in a timed batch."""

_SINGLES = 16
"""Queries that are timed one at a time."""

_LARGEST_TIMED_FLAT = 1_000_000
"""Items. In larger catalogues scoring every item is never the quickest."""

_LEAST_GAIN = 0.001
"""Recall. A wider search that gains less than this has reached the limit of the index's codes."""

_TIMED_DEPTH = 64
"""Candidates of a timed search: for a list of 20, as many seen items, and some margin."""

_CELL_SIZE = 800
"""Items in a cell of a large catalogue, on average. Larger cells mix items of several kinds, which
are read for the few that are needed."""

_TRAINING_VECTORS_PER_CELL = 40
"""Vectors that FAISS learns each cell from: the least that it takes without a warning is 39."""

_LARGEST_SAMPLE = 2**16
"""Vectors that codes are learned from, if the cells need no more."""

_ITEMS_AT_ONCE = 2**18
"""Items added to an index at a time. More take more memory."""

_HNSW_BUILD_BREADTH = 80
"""Breadth of the search for neighbours (efConstruction). More build a better graph more slowly."""

_EXACT = Recalls(plain=1.0, steered=1.0, filtered=1.0, short=1.0)


class Trial(NamedTuple):
    """The measurement of one kind of index with one setting."""

    kind: str
    """"flat", or one of KINDS."""
    effort: int
    """Cells probed, or breadth of the search; 0 for kinds that have neither."""
    over_fetch: float
    """Candidates fetched for each item needed."""
    recalls: Recalls
    single_us: float = 0.0
    """CPU time of one query alone, on one thread: the least of several rounds; 0 if recall was too
    low."""
    batched_us: float = 0.0
    """CPU time of one query within a batch of 32."""

    @property
    def cost_us(self) -> float:
        """The mean CPU time of a query, if half of them are answered in batches."""
        return (self.single_us + self.batched_us) / 2


class ChosenIndex(NamedTuple):
    """The chosen index, and the measurements that led to it."""

    index: Any
    """A faiss.Index by inner product; None for "flat"."""
    trial: Trial
    """Its measurement."""
    trials: tuple[Trial, ...]
    """All measurements, the chosen one's included; empty if the catalogue is small."""


@dataclass(frozen=True)
class IndexOptions:
    """The kinds of index that may be chosen, and the recall that they must reach."""

    flat_limit: int = FLAT_LIMIT
    """Items. Catalogues up to this size are searched exactly, without a measurement."""
    kinds: tuple[str, ...] = (FLAT, *KINDS)
    """With a single kind nothing depends on timing. If none reaches the recall, "flat" is taken."""
    required_recall: float = 0.95
    """Share of the exact best 20 and 100 that must be found: plain, steered and filtered."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - {FLAT, *KINDS}):
            raise ValueError(
                f"index kind: expected {FLAT}, {', '.join(KINDS)}, found {unknown[0]!r}"
            )


def choose_index(
    items: Floats, plain: Floats, steered: Floats, options: IndexOptions | None = None
) -> ChosenIndex:
    """Builds and measures the kinds of index, and returns the quickest that finds enough.

    Args:
        items: [V | b], float32 [n_items, p + 1], memory-mapped or not. The index is over V alone if
            every bias is 0.
        plain: Unsteered queries, float32 [queries, p].
        steered: Steered queries, float32 [queries, p].
        options: The kinds that may be chosen.
    """
    options = options or IndexOptions()
    items = np.asarray(items)  # rows of a np.memmap are slow to take
    flat = _Contender(None, Trial(FLAT, effort=0, over_fetch=1.0, recalls=_EXACT))
    kinds = [name for name in options.kinds if name in KINDS and len(items) <= KINDS[name].largest]
    if len(items) <= max(options.flat_limit, _SMALLEST_INDEXED) or not kinds:
        return ChosenIndex(None, flat.trial, ())
    measured = _measure(items, plain, steered, kinds, options.required_recall)
    times_flat = FLAT in options.kinds and len(items) <= _LARGEST_TIMED_FLAT
    contenders = [flat, *measured.passed] if times_flat else measured.passed
    timed = _timed(contenders, items, np.vstack([plain[:_BATCH], steered[:_BATCH]]))
    best = _quickest(timed) if timed else flat
    best.prepare()
    trials = (*(contender.trial for contender in timed), *measured.failed)
    return ChosenIndex(best.index, best.trial, trials)


class _Contender(NamedTuple):
    """An index with one setting; None for "flat"."""

    index: Any
    trial: Trial

    def prepare(self) -> None:
        """Sets the effort, which is stored with the index."""
        if isinstance(self.index, faiss.IndexIVF):
            self.index.nprobe = self.trial.effort
        elif isinstance(self.index, faiss.IndexHNSW):
            self.index.hnsw.efSearch = self.trial.effort


class _Measured(NamedTuple):
    """The contenders that find enough, and the last trial of each kind that does not."""

    passed: list[_Contender]
    failed: list[Trial]


def _measure(
    items: Floats, plain: Floats, steered: Floats, kinds: Sequence[str], required_recall: float
) -> _Measured:
    """Builds an index of each kind and measures its recall with each setting worth a trial."""
    truth = Truth(items, plain, steered)
    builder = _Builder(items if items[:, -1].any() else items[:, :-1])
    measured = _Measured([], [])
    for name in kinds:
        trials = list(_trials(name, builder.build(KINDS[name]), truth, required_recall))
        passed = [one for one in trials if min(one.trial.recalls) >= required_recall]
        measured.passed.extend(passed)
        if not passed:
            measured.failed.extend(one.trial for one in trials[-1:])
    return measured


def _trials(name: str, index: Any, truth: Truth, required_recall: float) -> Iterator[_Contender]:
    """Measures an index with each over-fetch and with efforts from the least upwards.

    Efforts end where enough is found, or where a higher one finds no more than the last.
    """
    kind = KINDS[name]
    scale = index.nlist if isinstance(index, faiss.IndexIVF) else 1
    efforts = sorted({int(max(effort * scale, effort > 0)) for effort in kind.efforts})
    for over_fetch in kind.over_fetches:
        before = 0.0
        for place, effort in enumerate(efforts):
            contender = _Contender(index, Trial(name, effort, over_fetch, _EXACT))
            contender.prepare()
            recalls = truth.recalls(index, over_fetch)
            yield contender._replace(trial=contender.trial._replace(recalls=recalls))
            if min(recalls) >= required_recall:
                efforts = efforts[:place]  # more candidates only pay where they save effort
                break
            if min(recalls) < before + _LEAST_GAIN:
                break
            before = min(recalls)


def _quickest(timed: Sequence[_Contender]) -> _Contender:
    """Picks the first contender, the simplest, unless a later one is clearly quicker."""
    best = timed[0]
    for contender in timed[1:]:
        if contender.trial.cost_us < _CLEARLY_QUICKER * best.trial.cost_us:
            best = contender
    return best


@one_thread()
def _timed(contenders: Sequence[_Contender], items: Floats, queries: Floats) -> list[_Contender]:
    """Times all contenders in turns; the least of the rounds was disturbed least."""
    searches = [_search_of(contender, items) for contender in contenders]
    least = np.full((len(contenders), 2), np.inf)
    for turn in range(_ROUNDS):
        batch = queries[turn % 2 :: 2]
        singles = [query[None] for query in batch[:: len(batch) // _SINGLES or 1]]
        for row, (contender, search) in enumerate(zip(contenders, searches, strict=True)):
            contender.prepare()
            times = (_us_each(search, singles), _us_each(search, [batch]))
            least[row] = np.minimum(least[row], times)
    return [
        contender._replace(trial=contender.trial._replace(single_us=single, batched_us=batched))
        for contender, (single, batched) in zip(contenders, least.tolist(), strict=True)
    ]


def _search_of(contender: _Contender, items: Floats) -> Callable[[Floats], None]:
    """Returns a function that finds candidates for queries [m, p] and rescores them."""
    if contender.index is None:
        return _flat_search(items)
    index = FaissIndex(contender.index, contender.trial.over_fetch)
    depth = int(np.ceil(_TIMED_DEPTH * index.over_fetch))

    def search(queries: Floats) -> None:
        for rows, query in zip(index.search(queries, depth), queries, strict=True):
            score(items, rows, query)

    return search


def _flat_search(items: Floats) -> Callable[[Floats], None]:
    """Returns a function that scores every item for queries [m, p].

    torch computes it, not ExactIndex: numpy's products cannot be held to one thread here.
    """
    matrix = torch.from_numpy(np.require(items, np.float32, ["C", "W"]))

    def search(queries: Floats) -> None:
        extended = np.hstack([queries, np.ones((len(queries), 1), np.float32)])
        asked = torch.from_numpy(extended)
        scores = (matrix @ asked[0])[None] if len(asked) == 1 else asked @ matrix.T
        torch.topk(scores, min(_TIMED_DEPTH, scores.shape[1]), dim=1)

    return search


def _us_each(search: Callable[[Floats], None], batches: Sequence[Floats]) -> float:
    """Measures the CPU time of a query in microseconds."""
    begin = time.thread_time()
    for batch in batches:
        search(batch)
    return (time.thread_time() - begin) / sum(map(len, batches)) * 1e6


class _Builder:
    """Builds indexes from a sample and piece by piece: the vectors need not fit into memory."""

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors
        n_items, width = vectors.shape
        self._pairs = -(-width // 2)
        # FAISS wants at least 39 vectors for each cell: 40 in the smallest catalogues.
        cells = min(max(2 * np.sqrt(n_items), n_items / _CELL_SIZE), n_items / 40)
        self._cells = max(int(cells), 1)
        size = min(n_items, max(_TRAINING_VECTORS_PER_CELL * self._cells, _LARGEST_SAMPLE))
        rows = np.sort(np.random.default_rng(0).choice(n_items, size, replace=False))
        self._sample = self._padded(vectors[rows])
        self._centres: Floats | None = None

    def build(self, kind: IndexKind) -> Any:
        """Builds a faiss.Index over all vectors."""
        description = kind.factory.format(cells=self._cells, pairs=self._pairs)
        index = faiss.index_factory(2 * self._pairs, description, faiss.METRIC_INNER_PRODUCT)
        has_cells = isinstance(index, faiss.IndexIVF)
        is_graph = isinstance(index, faiss.IndexHNSW)
        if has_cells and self._centres is not None:
            # Centres that are there already are not learned again.
            faiss.downcast_index(index.quantizer).add(self._centres)
        index.train(self._sample)
        if has_cells:
            self._centres = index.quantizer.reconstruct_n(0, self._cells)
        if is_graph:
            index.hnsw.efConstruction = _HNSW_BUILD_BREADTH
        # With several threads HNSW's links depend on timing, and the same run would not give the
        # same bundle.
        with one_thread() if is_graph else contextlib.nullcontext():
            for start in range(0, len(self._vectors), _ITEMS_AT_ONCE):
                index.add(self._padded(self._vectors[start : start + _ITEMS_AT_ONCE]))
        return index

    def _padded(self, vectors: Floats) -> Floats:
        """Appends a column of zeros to vectors of odd width."""
        padded = np.zeros((len(vectors), 2 * self._pairs), np.float32)
        padded[:, : vectors.shape[1]] = vectors
        return padded
