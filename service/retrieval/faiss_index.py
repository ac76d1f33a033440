"""An index of FAISS, of any kind: flat, quantised, in cells (IVF) or a graph (HNSW)."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.arrays import Bools, Floats, Ints

CHOSEN_DEPTH = 128
"""Candidates, for each unit of over-fetch, that an index's effort (cells probed, or breadth) was
chosen for: the exporter chose it by the best 100, and depths are powers of two. Searches for more
candidates probe proportionally more."""


PROBE_FACTOR = 2
"""Cells probed in a search among allowed items, relative to the cells that would hold enough of
them if they lay evenly. Raising it finds more and reads more: docs/results/retrieval.md."""


CODES_PER_VECTOR = 4
"""Codes that the index reads in the time in which one vector is gathered and scored. Raising it
prefers over-fetching to scoring all that is allowed: docs/results/retrieval.md."""


MOST_CELLS = 0.5
"""Share of the cells that must hold allowed items, so that a search surely meets some."""


PARAMETERS_KEPT = 64
"""Search parameters kept by depth: depths are powers of two, so there are fewer."""


class FaissIndex:
    """A FAISS index over V or over [V | b], to whose rows zeros may be appended; see Index.

    Args:
        index: A faiss.Index by inner product, which is not changed while this object is used.
        over_fetch: See Index.
    """

    def __init__(self, index: Any, over_fetch: float = 1.0) -> None:
        self._index = index
        self.n_items: int = index.ntotal
        self.width: int = index.d
        self.over_fetch = max(over_fetch, 1.0)
        # A graph has no lists to read, and FAISS's fast scan without cells takes no selectors.
        self.can_select = isinstance(index, (faiss.IndexIVF, faiss.IndexScalarQuantizer))
        self._cell_of_item = _cells(index)
        self._parameters = lru_cache(maxsize=PARAMETERS_KEPT)(self._make_parameters)

    @classmethod
    def read(cls, path: Path, over_fetch: float = 1.0) -> "FaissIndex":
        """Opens an index file, memory-mapped.

        Raises:
            OSError, RuntimeError: the file holds no index.
        """
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), over_fetch)

    def search(self, queries: Floats, n: int) -> Ints:
        """Finds n items for each query; see Index."""
        return self._search(queries, n, self._parameters(n))

    def search_among(self, queries: Floats, n: int, allowed: Bools) -> Ints:
        """Finds n allowed items for each query; see Index.

        Only those cells are probed that hold allowed items.
        """
        selector = _selector(allowed)
        if not isinstance(self._index, faiss.IndexIVF):
            return self._search(queries, n, faiss.SearchParameters(sel=selector))
        occupied = self._occupied(allowed)
        thinness = self.n_items / max(int(np.count_nonzero(allowed)), 1)
        factor = PROBE_FACTOR * thinness * max(self._relative_depth(n), 1.0)
        probes = min(int(self._index.nprobe * factor) + 1, max(int(occupied.sum()), 1))
        parameters = faiss.SearchParametersIVF(
            sel=selector,
            nprobe=probes,
            quantizer_params=faiss.SearchParameters(sel=_selector(occupied)),
        )
        return self._search(queries, n, parameters)

    def over_fetch_pays(self, allowed: Bools, n: int) -> bool:
        """Returns True if most cells hold allowed items and a search for n reads few; see Index."""
        if not isinstance(self._index, faiss.IndexIVF):
            return False
        probed_share = self._index.nprobe / self._index.nlist * self._relative_depth(n)
        codes_read = self.n_items * probed_share
        if codes_read >= CODES_PER_VECTOR * np.count_nonzero(allowed):
            return False
        return bool(self._occupied(allowed).mean() > MOST_CELLS)

    def _occupied(self, allowed: Bools) -> Bools:
        """Marks the cells that hold any of the allowed items: bool [cells]."""
        occupied = np.zeros(self._index.nlist, bool)
        occupied[self._cell_of_item.take(np.flatnonzero(allowed))] = True
        return occupied

    def _search(self, queries: Floats, n: int, parameters: Any) -> Ints:
        n = min(n, self.n_items)
        width = queries.shape[1]
        if width < self.width:
            # The index holds [V | b] or zeros after V: a one meets the bias, and zeros do not care.
            padded = np.zeros((len(queries), self.width), np.float32)
            padded[:, :width] = queries
            padded[:, width] = 1.0
            queries = padded
        _, items = self._index.search(np.ascontiguousarray(queries), n, params=parameters)
        return np.asarray(items, np.int64)

    def _make_parameters(self, n: int) -> Any:
        """Makes the parameters of a search for n items; None for those stored with the index.

        A search for more items than the index's effort was chosen for probes proportionally more:
        the items that a filter allows may lie far from the query.
        """
        factor = self._relative_depth(n)
        if isinstance(self._index, faiss.IndexIVF) and factor > 1.0:
            probes = int(self._index.nprobe * factor) + 1
            return faiss.SearchParametersIVF(nprobe=min(probes, self._index.nlist))
        if isinstance(self._index, faiss.IndexHNSW) and factor > 1.0:
            breadth = int(self._index.hnsw.efSearch * factor) + 1
            return faiss.SearchParametersHNSW(efSearch=breadth)
        return None

    def _relative_depth(self, n: int) -> float:
        """Divides n by the number of candidates that the index's effort was chosen for."""
        return n / (CHOSEN_DEPTH * self.over_fetch)


def _selector(mask: Bools) -> Any:
    """Makes FAISS's selector of the marked rows."""
    return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def _cells(index: Any) -> NDArray[np.int32]:
    """Reads the cell of each item from an IVF index: int32 [n_items]; [0] for other kinds."""
    if not isinstance(index, faiss.IndexIVF):
        return np.empty(0, np.int32)
    cells = np.empty(index.ntotal, np.int32)
    lists = index.invlists
    for cell in range(index.nlist):
        items = faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell))
        cells[items] = cell
    return cells
