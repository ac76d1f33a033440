"""The FAISS index over the items: the quickest kind that finds enough, by measurement.

What counts is the time of an answer on one thread, scoring the candidates again included: one query
at a time, as an idle server does it, and in batches, as a busy one does. Recall is the condition
(see recall.py).
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch

from exporters.determinism import one_thread
from exporters.index_kinds import FLAT, KINDS, Kind
from exporters.models import Floats
from exporters.recall import Recalls, Truth, search

# Up to so many items, scoring all of them is about as quick as anything, and nothing is lost.
FLAT_LIMIT = 10_000


# FAISS cannot learn cells and codes from a handful of vectors.
_SMALLEST_INDEXED = 100


# Of two kinds that are about as quick, the simpler one: it must be beaten by more than measurements
# wander.
_CLEARLY_QUICKER = 0.9


_ROUNDS = 7


_BATCH = 32


_SINGLES = 16


_LARGEST_TIMED_FLAT = 1_000_000


# A wider search that finds this little more has met the limit of its codes.
_LEAST_GAIN = 0.001


_ALL = Recalls(1.0, 1.0, 1.0, 1.0)


# What a list of 20 asks for, with as many seen items again to drop and some to spare.
_TIMED_DEPTH = 64


# In a large catalogue more items would be of several kinds, and be read for the sake of one.
_CELL_SIZE = 800


_TRAINING_VECTORS_PER_CELL = 40


_ITEMS_AT_ONCE = 2**18


_HNSW_BUILD_BREADTH = 80


class Trial(NamedTuple):
    """What one kind of index did with one setting."""

    kind: str
    """"flat", or one of KINDS."""
    effort: int
    """Cells looked into, or breadth of the search; 0 where there is no such thing."""
    over_fetch: float
    """So many times as many items are asked for as are needed."""
    recalls: Recalls
    """What it finds."""
    single_us: float = 0.0
    """CPU time of a query on one thread, the best of several rounds; 0 where recall was too low."""
    batched_us: float = 0.0
    """The same within a batch of 32."""

    @property
    def cost_us(self) -> float:
        """Of a server that is as often alone with a query as not."""
        return (self.single_us + self.batched_us) / 2


class ChosenIndex(NamedTuple):
    """An index, and what was tried before it was chosen."""

    index: Any
    """A faiss.Index by inner product; None for "flat"."""
    trial: Trial
    """What it does."""
    trials: tuple[Trial, ...]
    """Everything that was measured, the chosen one included; empty if the catalogue is small."""


@dataclass(frozen=True)
class IndexOptions:
    """What may be chosen."""

    flat_limit: int = FLAT_LIMIT
    """Catalogues up to this size are searched exactly, without a measurement."""
    kinds: tuple[str, ...] = (FLAT, *KINDS)
    """Of one alone nothing depends on timing. Where none finds enough, it is "flat"."""
    required_recall: float = 0.95
    """Share of the exact best 20 and 100 that must be found: plain, steered and filtered."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.kinds) - {FLAT, *KINDS}):
            raise ValueError(
                f"index kind {unknown[0]!r} found, expected {FLAT}, {', '.join(KINDS)}"
            )


def choose_index(
    vectors: Floats, plain: Floats, steered: Floats, options: IndexOptions | None = None
) -> ChosenIndex:
    """The quickest kind of index that finds enough.

    Args:
        vectors: [n_items, p], with the bias as last column if there is one; memory-mapped or not.
        plain: [queries, p], ending in 1 if there is a bias.
        steered: [queries, p], likewise.
        options: what may be chosen.
    """
    options = options or IndexOptions()
    flat = _Contender(None, Trial(FLAT, 0, 1.0, _ALL))
    kinds = [
        name for name in options.kinds if name in KINDS and len(vectors) <= KINDS[name].largest
    ]
    if len(vectors) <= max(options.flat_limit, _SMALLEST_INDEXED) or not kinds:
        return ChosenIndex(None, flat.trial, ())
    truth, builder = Truth(vectors, plain, steered), _Builder(vectors)
    time_flat = FLAT in options.kinds and len(vectors) <= _LARGEST_TIMED_FLAT
    contenders, failed = [flat] if time_flat else [], []
    for name in kinds:
        measured = list(_measured(name, builder.build(KINDS[name]), truth, options.required_recall))
        passed = [one for one in measured if min(one.trial.recalls) >= options.required_recall]
        contenders += passed
        failed += [one.trial for one in measured[-1:] if not passed]
    timed = _timed(contenders, vectors, np.vstack([plain[:_BATCH], steered[:_BATCH]]))
    best = timed[0] if timed else flat
    for one in timed[1:]:
        if one.trial.cost_us < _CLEARLY_QUICKER * best.trial.cost_us:
            best = one
    best.prepare()
    return ChosenIndex(best.index, best.trial, (*(one.trial for one in timed), *failed))


class _Contender(NamedTuple):
    index: Any
    trial: Trial

    def prepare(self) -> None:
        """Sets the effort, which is stored with the index."""
        if isinstance(self.index, faiss.IndexIVF):
            self.index.nprobe = self.trial.effort
        elif isinstance(self.index, faiss.IndexHNSW):
            self.index.hnsw.efSearch = self.trial.effort


def _measured(name: str, index: Any, truth: Truth, required_recall: float) -> Iterator[_Contender]:
    """For each over-fetch, efforts from the least to one that finds enough, or no more than the last."""
    kind = KINDS[name]
    scale = index.nlist if isinstance(index, faiss.IndexIVF) else 1
    efforts = sorted({int(max(effort * scale, effort > 0)) for effort in kind.efforts})
    for over_fetch in kind.over_fetches:
        before = 0.0
        for place, effort in enumerate(efforts):
            one = _Contender(index, Trial(name, effort, over_fetch, _ALL))
            one.prepare()
            recalls = truth.recalls(index, over_fetch)
            yield one._replace(trial=one.trial._replace(recalls=recalls))
            if min(recalls) >= required_recall:
                efforts = efforts[:place]  # more candidates only pay where they save effort
                break
            if min(recalls) < before + _LEAST_GAIN:
                break
            before = min(recalls)


@one_thread()
def _timed(contenders: Sequence[_Contender], vectors: Floats, queries: Floats) -> list[_Contender]:
    """Takes the CPU time of each in turn, round after round: the least is the one that nothing disturbed."""
    answers = [_answers(one, vectors) for one in contenders]
    least = np.full((len(contenders), 2), np.inf)
    for turn in range(_ROUNDS):
        batch = queries[turn % 2 :: 2]
        singles = [query[None] for query in batch[:: len(batch) // _SINGLES or 1]]
        for row, (one, answer) in enumerate(zip(contenders, answers, strict=True)):
            one.prepare()
            taken = _us_each(answer, singles), _us_each(answer, [batch])
            least[row] = np.minimum(least[row], taken)
    return [
        one._replace(trial=one.trial._replace(single_us=single, batched_us=batched))
        for one, (single, batched) in zip(contenders, least.tolist(), strict=True)
    ]


def _answers(one: _Contender, vectors: Floats) -> Callable[[Floats], None]:
    """A function that finds candidates for queries [m, p] and scores them, as the service does."""
    if one.index is None:
        items = torch.from_numpy(np.require(vectors, np.float32, ["C", "W"]))

        def score_all(queries: Floats) -> None:
            asked = torch.from_numpy(queries)
            scores = (items @ asked[0])[None] if len(asked) == 1 else asked @ items.T
            torch.topk(scores, min(_TIMED_DEPTH, scores.shape[1]), dim=1)

        return score_all

    def find(queries: Floats) -> None:
        over_fetch = one.trial.over_fetch
        found = search(one.index, queries, _TIMED_DEPTH * over_fetch, over_fetch)
        for rows, query in zip(found, queries, strict=True):
            np.vecdot(vectors[rows], query)

    return find


def _us_each(answer: Callable[[Floats], None], batches: Sequence[Floats]) -> float:
    begin = time.thread_time()
    for batch in batches:
        answer(batch)
    return (time.thread_time() - begin) / sum(map(len, batches)) * 1e6


class _Builder:
    """Builds indexes from a sample and piece by piece: the vectors need not fit into memory."""

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors
        n_items, width = vectors.shape
        self._pairs = -(-width // 2)
        self._cells = max(
            int(min(max(2 * np.sqrt(n_items), n_items / _CELL_SIZE), n_items / 40)), 1
        )
        size = min(n_items, max(_TRAINING_VECTORS_PER_CELL * self._cells, 2**16))
        rows = np.sort(np.random.default_rng(0).choice(n_items, size, replace=False))
        self._sample = self._padded(vectors[rows])
        self._centres: Floats | None = None

    def build(self, kind: Kind) -> Any:
        description = kind.factory.format(cells=self._cells, pairs=self._pairs)
        index = faiss.index_factory(2 * self._pairs, description, faiss.METRIC_INNER_PRODUCT)
        if isinstance(index, faiss.IndexIVF) and self._centres is not None:
            faiss.downcast_index(index.quantizer).add(
                self._centres
            )  # then they are not sought again
        index.train(self._sample)
        if isinstance(index, faiss.IndexIVF):
            self._centres = index.quantizer.reconstruct_n(0, self._cells)
        if isinstance(index, faiss.IndexHNSW):
            index.hnsw.efConstruction = _HNSW_BUILD_BREADTH
        # With several threads HNSW's links depend on timing, and the same run would not give the
        # same bundle.
        with one_thread() if isinstance(index, faiss.IndexHNSW) else contextlib.nullcontext():
            for start in range(0, len(self._vectors), _ITEMS_AT_ONCE):
                index.add(self._padded(self._vectors[start : start + _ITEMS_AT_ONCE]))
        return index

    def _padded(self, vectors: Floats) -> Floats:
        """To an even width, with zeros."""
        padded = np.zeros((len(vectors), 2 * self._pairs), np.float32)
        padded[:, : vectors.shape[1]] = vectors
        return padded
